"""Nothing that a decoder will be judged on is among what it learns from, whatever it is called and however it is written."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lvm.data.dataset import Dataset
from lvm.data.unseen import normalised_text
from lvm.decoding.inverter.holdout import TrainingTexts, training_texts
from lvm.errors import InputError


def with_splits(dataset: Dataset, **splits: list[int]) -> Dataset:
    """The documents named in `splits` stand there, all others in train."""
    found = np.full(len(dataset.doc_ids), "train", object)
    for split, docs in splits.items():
        found[docs] = split
    return replace(dataset, doc_splits=found)


def another_collection(dataset: Dataset, change: Callable[[int, str], str], **splits: list[int]) -> Dataset:
    """The same documents under other ids, with `change(row, text)` for their texts."""
    texts = [change(row, text) for row, text in enumerate(dataset.texts(np.arange(dataset.n_rows)))]
    table = dataset.table.set_column(dataset.table.column_names.index("text"), "text", pa.array(texts))
    return replace(with_splits(dataset, **splits), table=table, doc_ids=[f"copy of {name}" for name in dataset.doc_ids])


def rows_of(dataset: Dataset, doc: int) -> range:
    return range(dataset.starts[doc], dataset.starts[doc + 1])


def by_hand(dataset: Dataset, held: set[str]) -> TrainingTexts:
    """What must be found, text by text."""
    source = dataset.table.column("source").to_pylist()
    kept: list[str] = []
    sources: list[str] = []
    documents = texts = 0
    for doc in dataset.docs("train").tolist():
        own = dataset.texts(rows_of(dataset, doc))
        copied = sum(normalised_text(text) in held for text in own)
        if copied / len(own) >= dataset.manifest.splits.min_shared:
            documents += 1
        else:
            texts += copied
            free = [row for row in rows_of(dataset, doc) if normalised_text(dataset.texts([row])[0]) not in held]
            kept += dataset.texts(free)
            sources += [source[row] for row in free]
    return TrainingTexts(kept, sources, documents, texts, frozenset(held))


@pytest.fixture()
def everything(dataset: Dataset) -> Dataset:
    """All documents in train."""
    return with_splits(dataset)


@pytest.fixture()
def long(dataset: Dataset) -> int:
    """A document of many chunks, a multiple of five, none of which stands anywhere else."""
    texts = [normalised_text(text) for text in dataset.texts(np.arange(dataset.n_rows))]
    alone = [doc for doc in range(len(dataset.doc_ids)) if all(texts.count(texts[row]) == 1 for row in rows_of(dataset, doc))]
    return max((doc for doc in alone if len(rows_of(dataset, doc)) % 5 == 0), key=lambda doc: len(rows_of(dataset, doc)))


def test_no_validation_or_test_text_is_learned(dataset: Dataset) -> None:
    held = {normalised_text(text) for split in ("val", "test") for text in dataset.texts(dataset.rows(split))}
    found = training_texts(dataset, [])
    assert not held & {normalised_text(text) for text in found.texts}
    assert found == by_hand(dataset, held)
    assert len(found.texts) > 0.8 * len(dataset.rows("train"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_copy_of_a_held_out_document_is_dropped_whole_under_any_id_case_and_white_space(
    everything: Dataset, long: int, split: str
) -> None:
    other = another_collection(everything, lambda row, text: f"  {text.upper()}\n".replace(" ", "\t "), **{split: [long]})
    own = everything.texts(rows_of(everything, long))
    found = training_texts(everything, [other])
    assert found.dropped_documents == 1 and found.dropped_texts == 0
    assert len(found.texts) == everything.n_rows - len(own) and not set(own) & set(found.texts)


def test_a_near_copy_is_dropped_whole_with_the_texts_that_only_it_holds(everything: Dataset, long: int) -> None:
    rows = rows_of(everything, long)
    shared = set(rows[: len(rows) // 5])
    other = another_collection(everything, lambda row, text: text if row in shared else f"rewritten {row}", test=[long])
    found = training_texts(everything, [other])
    assert found.dropped_documents == 1 and not set(everything.texts(rows)) & set(found.texts)


def test_of_a_document_that_shares_less_only_those_texts_are_dropped(everything: Dataset, long: int) -> None:
    rows = rows_of(everything, long)
    shared = set(rows[: len(rows) // 5 - 1])
    other = another_collection(everything, lambda row, text: text if row in shared else f"rewritten {row}", test=[long])
    found = training_texts(everything, [other])
    kept = [text for row, text in enumerate(everything.texts(np.arange(everything.n_rows))) if row not in shared]
    assert shared and found == TrainingTexts(kept, ["addresses"] * len(kept), 0, len(shared), found.held)


def test_training_texts_of_other_datasets_are_no_reason_to_leave_anything_out(everything: Dataset, long: int) -> None:
    texts = everything.texts(everything.rows("train"))
    assert training_texts(everything, [with_splits(everything)]) == TrainingTexts(texts, ["addresses"] * len(texts), 0, 0, frozenset())


def test_every_dataset_that_is_given_is_held_out(dataset: Dataset) -> None:
    first, second = dataset.docs("train")[:2].tolist()
    others = [with_splits(dataset, val=[first]), with_splits(dataset, test=[second])]
    held = {normalised_text(text) for split in ("val", "test") for data in (dataset, *others) for text in data.texts(data.rows(split))}
    found = training_texts(dataset, others)
    assert found == by_hand(dataset, held)
    assert found.dropped_documents >= 2


def test_nothing_left_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="no training text that is not held out: give more documents"):
        training_texts(dataset, [with_splits(dataset, test=list(range(len(dataset.doc_ids))))])
    with pytest.raises(InputError, match="no training text"):
        training_texts(with_splits(dataset, val=list(range(len(dataset.doc_ids)))), [])
