"""The gate `pairing` passes contexts with their own targets, and fails exchanged ones, whatever kinds of text the splits hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.gates.data.pairing import document_sums_of_units, lead_over_other_documents, pairing
from tests.support.planted import planted
from tests.support.poisoned_data import Poison, changed, column, failed, mixed

LIMITS = GateThresholds()


def mean_cosine(dataset: Dataset, split: str) -> float:
    """Of last context chunk and target."""
    found = []
    for doc in dataset.docs(split):
        x = dataset.vectors[dataset.starts[doc] : dataset.starts[doc + 1]]
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        found.append((x[:-1] * x[1:]).sum(1))
    return float(np.concatenate(found).mean())


@pytest.mark.parametrize("splits", [["val"], ["test"], ["val", "test"], ["train"]])
def test_rows_mispaired_across_documents_fail_pairing_by_their_splits(dataset: Dataset, poisoned: Poison, splits: list[str]) -> None:
    data = replace(poisoned(), doc_splits=np.array(["val", "test", "train"], object)[np.arange(len(dataset.doc_ids)) % 3])
    texts = [f"{row}" for row in range(data.n_rows)]  # none twice: the lead alone has to tell
    assert pairing(data, LIMITS).passed
    reason = failed(pairing(changed(data, data.path, mixed(data, splits), {"text": texts}), LIMITS))
    assert f"In {', '.join(splits)} contexts and targets come from different rows" in reason and "extract again" in reason


def test_exchanged_rows_of_too_few_documents_for_an_interval_warn(dataset: Dataset, poisoned: Poison) -> None:
    few = np.array(["train"] * len(dataset.doc_ids), object)
    few[:3], few[3:6] = "val", "test"
    data = replace(poisoned(columns={"text": [f"{row}" for row in range(dataset.n_rows)]}), doc_splits=few)
    assert pairing(data, LIMITS).severity == "ok"
    vectors = np.array(dataset.vectors)
    vectors[data.rows("val")] = np.random.default_rng(1).permutation(dataset.vectors[data.rows("train")])[: len(data.rows("val"))]
    result = pairing(changed(data, data.path, vectors), LIMITS)
    assert result.severity == "warn" and "val may hold random pairs" in result.reason and "more documents" in result.remedy


def test_splits_of_different_kinds_of_text_pass_pairing(tmp_path: Path) -> None:
    # Every kind has a mean vector of its own and its own likeness of neighbours; train, val and test are of one kind each.
    rng = np.random.default_rng(0)
    documents = []
    for doc in range(36):
        kind, subject = np.eye(16)[doc % 3], rng.normal(size=16)
        steps = [0.3, 0.9, 2.0][doc % 3] * rng.normal(size=(20, 16))
        documents.append(kind + 0.5 * subject + steps)
    data = planted(tmp_path, documents)
    kinds = np.array(["train", "val", "test"], object)[np.arange(36) % 3]
    apart = replace(data, doc_splits=kinds)
    means = [mean_cosine(apart, split) for split in ("train", "val", "test")]
    assert max(means) - min(means) > 0.2
    assert pairing(apart, LIMITS).severity == "ok"


def test_the_lead_is_that_over_every_chunk_of_the_other_documents_of_the_split(dataset: Dataset) -> None:
    x = dataset.vectors / np.linalg.norm(dataset.vectors, axis=1, keepdims=True)
    found = []
    rows = dataset.rows("val")
    for row in rows[1:]:
        if dataset.row_doc[row] == dataset.row_doc[row - 1]:
            others = rows[dataset.row_doc[rows] != dataset.row_doc[row]]
            found.append(x[row - 1] @ x[row] - (x[others] @ x[row - 1]).mean())
    assert len(dataset.docs("val")) >= 5
    lead = lead_over_other_documents(dataset, "val", document_sums_of_units(dataset))
    assert lead.interval.value == pytest.approx(np.mean(found), abs=1e-6)
    assert lead.windows == len(found)


def test_a_split_of_one_document_is_compared_with_the_other_splits(dataset: Dataset) -> None:
    one = int(dataset.docs("val")[0])
    splits = np.where(np.arange(len(dataset.doc_ids)) == one, "val", np.where(dataset.doc_splits == "val", "train", dataset.doc_splits))
    result = pairing(replace(dataset, doc_splits=splits.astype(object)), LIMITS)
    assert result.passed and "[too few documents]" in result.reason


def test_a_split_without_documents_fails_pairing_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = planted(tmp_path, [rng.normal(size=(20, 8)) for _ in range(10)])
    data = replace(data, doc_splits=np.array(["train"] * 8 + ["test"] * 2, object))
    result = pairing(data, LIMITS)
    assert "split 'val' has no chunk with another before it" in failed(result) and "more documents" in result.remedy
    assert (result.value, result.threshold) == (0, 0)


def test_vectors_one_row_off_their_texts_fail_pairing(dataset: Dataset, poisoned: Poison) -> None:
    texts = column(dataset, "text")
    texts[50] = texts[3000] = "A sentence that stands here twice."
    vectors = np.array(dataset.vectors)
    vectors[3000] = vectors[50]
    assert pairing(poisoned(vectors, {"text": texts}), LIMITS).passed
    result = pairing(poisoned(np.roll(vectors, 1, axis=0), {"text": texts}), LIMITS)
    assert "chunks have another vector than a chunk of the same text" in failed(result)


def test_equal_texts_may_differ_by_the_encoder_s_rounding(dataset: Dataset, poisoned: Poison) -> None:
    texts = column(dataset, "text")
    texts[51] = texts[50]
    vectors = np.array(dataset.vectors)
    noise = np.random.default_rng(0).normal(size=dataset.dim)
    vectors[51] = vectors[50] + 0.02 * np.linalg.norm(vectors[50]) * noise / np.linalg.norm(noise)  # cosine .9998
    assert pairing(poisoned(vectors, {"text": texts}), LIMITS).passed


def test_repeated_window_keys_fail_pairing(dataset: Dataset, poisoned: Poison) -> None:
    index = np.array(dataset.chunk_index)
    rows = np.setdiff1d(np.arange(dataset.n_rows), dataset.starts)[::50]
    index[rows] = index[rows - 1]
    result = pairing(poisoned(columns={"chunk_index": index}), LIMITS)
    assert "distinct window keys 98." in failed(result)
