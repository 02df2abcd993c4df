"""A document is new when its texts are, whatever it is called; a night's sample rotates; copied chunks are found."""

import numpy as np
import pytest
import torch

from lvm.data.chunker import Chunker
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.data.unseen import Fresh, copied_rows, fresh_documents, rotating_sample
from lvm.errors import InputError
from tests.support.nights import addresses, extracted, written


def texts(dataset: Dataset, doc: int) -> list[str]:
    return dataset.texts(np.arange(dataset.starts[doc], dataset.starts[doc + 1]))


@pytest.fixture()
def judge(dataset: Dataset, encoder: Encoder, tmp_path):
    """What is fresh among documents."""

    def found(documents: dict[str, str]) -> Fresh:
        return fresh_documents(
            [str(written(documents, tmp_path / "offered.jsonl"))], dataset, Chunker(dataset.manifest.chunker, encoder.tokenizer)
        )

    return found


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_documents_of_the_record_are_known_under_any_name(judge, dataset, split):
    doc = int(dataset.docs(split)[0])
    again = "\n".join(texts(dataset, doc))
    assert judge({"renamed": again, "shouted": again.upper() + "\nAnd a last word."}) == Fresh([], ["renamed", "shouted"])


def test_new_text_under_a_known_name_is_fresh(judge, dataset):
    ((_, text),) = addresses(1).items()
    assert judge({dataset.doc_ids[0]: text}) == Fresh([dataset.doc_ids[0]], [])


def test_document_that_shares_a_fifth_of_its_texts_is_known_and_one_that_shares_less_is_fresh(judge, dataset):
    own, ((_, text),) = texts(dataset, 0), addresses(1).items()
    new = text.splitlines()[:20]
    few, many = "\n".join([own[1], *new]), "\n".join([*own[:30], *new[:2]])
    assert judge({"few": few, "many": many}) == Fresh(["few"], ["many"])


def test_sample_is_the_same_for_one_night_and_rotates_over_nights():
    ids = [f"doc-{i}" for i in range(50)]
    night = rotating_sample(ids, 10, "2026-01-01")
    assert night == rotating_sample(ids[::-1], 10, "2026-01-01") == sorted(night) and len(night) == 10
    assert night != rotating_sample(ids, 10, "2026-01-02")
    assert {d for day in range(1, 29) for d in rotating_sample(ids, 10, f"2026-01-{day:02}")} == set(ids), (
        "in a month every document has its night"
    )
    assert rotating_sample(ids[:3], 10, "2026-01-01") == ids[:3]


def test_chunks_that_stand_in_the_record_s_training_documents_are_found(dataset, encoder, tmp_path):
    train, test = texts(dataset, int(dataset.docs("train")[0])), texts(dataset, int(dataset.docs("test")[0]))
    ((_, text),) = addresses(1).items()
    taken = {train[3], train[7]}
    fresh = extracted({"mixed": "\n".join([*text.splitlines()[:8], train[3], test[5], train[7]])}, tmp_path, encoder)
    found = fresh.texts(copied_rows(fresh, dataset, torch.device("cpu")))
    assert taken <= set(found)
    assert test[5] not in found or test[5] in set(dataset.texts(dataset.rows("train")))


def test_nothing_usable_is_an_error(judge):
    with pytest.raises(InputError, match="no usable document"):
        judge({"empty": "  "})
