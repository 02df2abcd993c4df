"""The gate `split_leakage` passes separate splits, and fails those that share text, naming the documents."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.gates.data.split_leakage import split_leakage
from tests.support.poisoned_data import Poison, column, copied, doubled, failed

LIMITS = GateThresholds()


@pytest.mark.parametrize("other", ["val", "test"])
def test_document_in_two_splits_fails_split_leakage_by_name(dataset: Dataset, poisoned: Poison, other: str) -> None:
    doc = int(dataset.docs("train")[3])
    splits = column(dataset, "split")
    splits[dataset.starts[doc + 1] - 1] = other  # its last chunk alone
    result = split_leakage(poisoned(columns={"split": splits}), LIMITS)
    reason = failed(result)
    assert result.value == 1
    assert dataset.doc_ids[doc] in reason and "split by document, extract again" in reason


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("what", ["texts", "vectors", "both"])
def test_rows_copied_from_train_fail_split_leakage_by_name(dataset: Dataset, poisoned: Poison, split: str, what: str) -> None:
    vectors, texts, rows = copied(dataset, split, 0.12, what)
    result = split_leakage(poisoned(vectors, {"text": texts}), LIMITS)
    reason = failed(result)
    assert LIMITS.leaked_rows_fail < result.value < 0.16, "an eighth, but for the document with most"
    docs, counts = np.unique(dataset.row_doc[rows], return_counts=True)
    assert dataset.doc_ids[docs[counts.argmax()]] in reason
    assert "remove copied documents, or lower splits.min_shared" in reason


def test_the_worst_documents_are_named_whichever_split_they_are_in(dataset: Dataset, poisoned: Poison) -> None:
    vectors, texts, rows = copied(dataset, "val", 0.3, "vectors")
    one = int(dataset.rows("test")[5])
    vectors[one] = vectors[dataset.rows("train")[0]]
    reason = failed(split_leakage(poisoned(vectors, {"text": texts}), LIMITS))
    docs, counts = np.unique(dataset.row_doc[rows], return_counts=True)
    assert dataset.doc_ids[docs[counts.argmax()]] in reason


def test_a_few_copied_rows_warn_and_are_not_scored(dataset: Dataset, poisoned: Poison) -> None:
    vectors, texts, _ = copied(dataset, "test", 0.06, "both")
    result = split_leakage(poisoned(vectors, {"text": texts}), LIMITS)
    assert (result.passed, result.severity) == (True, "warn"), result
    assert LIMITS.leaked_rows_warn < result.value < LIMITS.leaked_rows_fail
    assert "left out of scoring" in result.reason and "remove copied documents" in result.remedy


def test_rows_that_are_copied_almost_exactly_count_as_copied(dataset: Dataset, poisoned: Poison) -> None:
    vectors, texts, rows = copied(dataset, "test", 0.12, "vectors")
    vectors[rows] += np.random.default_rng(0).normal(scale=0.03 / np.sqrt(dataset.dim), size=(len(rows), dataset.dim)).astype(np.float32)
    failed(split_leakage(poisoned(vectors, {"text": texts}), LIMITS))


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_empty_split_fails_split_leakage_with_the_remedy(dataset: Dataset, tmp_path: Path, missing: str) -> None:
    rest = {"train": "val", "val": "test", "test": "train"}[missing]
    splits = np.where(dataset.doc_splits == missing, rest, dataset.doc_splits)
    data = replace(
        dataset,
        path=tmp_path,
        doc_splits=splits,
        table=dataset.table.set_column(3, "split", pa.array(splits[dataset.row_doc].tolist())),
    )
    reason = failed(split_leakage(data, LIMITS))
    assert f"split '{missing}' is empty" in reason and "give more documents" in reason


def test_every_second_document_doubled_across_splits_fails_split_leakage_by_name(dataset: Dataset, tmp_path: Path) -> None:
    docs = range(0, len(dataset.doc_ids), 2)
    splits = np.random.default_rng(0).choice(["train", "val", "test"], len(docs), p=[0.8, 0.1, 0.1])
    reason = failed(split_leakage(doubled(dataset, tmp_path, docs, splits.tolist()), LIMITS))
    assert "in documents that train mostly holds" in reason
    torn = [dataset.doc_ids[d] for d, split in zip(docs, splits, strict=True) if (dataset.doc_splits[d] == "train") and split == "test"]
    assert torn and all(doc_id in reason for doc_id in torn[:1])


def test_one_leaked_source_fails_split_leakage_though_its_share_is_small(dataset: Dataset, tmp_path: Path) -> None:
    # A fifth of the documents are a source of their own; one of them is in train and in test.
    leaked = doubled(dataset, tmp_path, [int(dataset.docs("train")[0])], ["test"])
    wide = replace(leaked, doc_splits=np.where(leaked.doc_splits == "val", "test", leaked.doc_splits).astype(object))
    wide.doc_splits[wide.docs("test")[0]] = "val"
    splits = wide.doc_splits[wide.row_doc]
    wide = replace(wide, table=wide.table.set_column(3, "split", pa.array(splits.tolist())))
    result = split_leakage(wide, LIMITS)
    assert wide.doc_ids[-1] in failed(result)
    assert result.value < LIMITS.leaked_rows_fail, "no more than this document shows it"


def test_boilerplate_of_many_documents_passes_split_leakage(dataset: Dataset, poisoned: Poison) -> None:
    texts = column(dataset, "text")
    for start, stop in zip(dataset.starts[:-1], dataset.starts[1:], strict=True):
        texts[start:stop:5] = ["Signed-off-by: the maintainer"] * len(range(start, stop, 5))
    result = split_leakage(poisoned(columns={"text": texts}), LIMITS)
    assert result.severity == "ok" and "20." in result.reason


def test_one_document_of_a_series_passes_split_leakage(dataset: Dataset, poisoned: Poison) -> None:
    texts = column(dataset, "text")
    test, train = (int(dataset.docs(split)[0]) for split in ("test", "train"))
    for row in range(dataset.starts[test], dataset.starts[test + 1], 3):
        texts[row] = texts[dataset.starts[train] + (row - dataset.starts[test]) % 7]
    assert split_leakage(poisoned(columns={"text": texts}), LIMITS).passed
