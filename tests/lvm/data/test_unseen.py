"""A document is unseen when its texts are, whatever its id; a night's sample rotates; copied chunks are found."""

import numpy as np
import pytest
import torch

from lvm.data.corpus import read_corpus
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.data.extract import make_chunker
from lvm.data.unseen import OfferedDocuments, compare_with_record, copied_rows, rotating_sample
from tests.support.nights import addresses, extracted, write_documents


def texts(dataset: Dataset, doc: int) -> list[str]:
    return dataset.texts(np.arange(dataset.starts[doc], dataset.starts[doc + 1]))


@pytest.fixture()
def compare(dataset: Dataset, encoder: Encoder, tmp_path):
    """Compares documents with the dataset."""

    def compared(documents: dict[str, str]) -> OfferedDocuments:
        source = str(write_documents(documents, tmp_path / "offered.jsonl"))
        with read_corpus([source], make_chunker(dataset.manifest.chunker, encoder), tmp_path) as corpus:
            return compare_with_record(corpus, dataset)

    return compared


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_documents_of_the_record_are_known_under_any_name(compare, dataset, split):
    doc = int(dataset.docs(split)[0])
    again = "\n".join(texts(dataset, doc))
    assert compare({"renamed": again, "shouted": again.upper() + "\nAnd a last word."}) == OfferedDocuments([], ["renamed", "shouted"])


def test_new_text_under_a_known_name_is_unseen(compare, dataset):
    ((_, text),) = addresses(1).items()
    assert compare({dataset.doc_ids[0]: text}) == OfferedDocuments([dataset.doc_ids[0]], [])


def test_document_that_shares_a_fifth_of_its_texts_is_known_and_one_that_shares_less_is_unseen(compare, dataset):
    own, ((_, text),) = texts(dataset, 0), addresses(1).items()
    new = text.splitlines()[:20]
    few, many = "\n".join([own[1], *new]), "\n".join([*own[:30], *new[:2]])
    assert compare({"few": few, "many": many}) == OfferedDocuments(["few"], ["many"])


def test_sample_is_the_same_for_one_night_and_rotates_over_nights():
    ids = [f"doc-{i}" for i in range(50)]
    night = rotating_sample(ids, 10, "2026-01-01")
    assert night == rotating_sample(ids[::-1], 10, "2026-01-01") == sorted(night) and len(night) == 10
    assert night != rotating_sample(ids, 10, "2026-01-02")
    assert {d for day in range(1, 29) for d in rotating_sample(ids, 10, f"2026-01-{day:02}")} == set(ids), (
        "in a month every document has its night"
    )
    assert rotating_sample(ids[:3], 10, "2026-01-01") == ids[:3]


def test_chunks_copied_from_the_record_s_training_documents_are_found(dataset, encoder, tmp_path):
    train, test = texts(dataset, int(dataset.docs("train")[0])), texts(dataset, int(dataset.docs("test")[0]))
    ((_, text),) = addresses(1).items()
    taken = {train[3], train[7]}
    night = extracted({"mixed": "\n".join([*text.splitlines()[:8], train[3], test[5], train[7]])}, tmp_path, encoder)
    found = night.texts(copied_rows(night, dataset, torch.device("cpu")))
    assert taken <= set(found)
    assert test[5] not in found or test[5] in set(dataset.texts(dataset.rows("train")))
