"""Hundred windows go from text to text, nothing on the way is taken from the store, and every arm decodes what its name says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.data.windows import leaked_rows
from lvm.decoding import evaluate as pipeline
from lvm.decoding.arms import decode_arms, encoder_norm
from lvm.decoding.evaluate import WINDOWS, DecodedWindows, decode_windows
from lvm.decoding.protocol import Decoded
from lvm.decoding.text_metrics import text_scores
from lvm.errors import GateRefused, InputError
from lvm.evaluation.looks import of_model, read_looks
from lvm.models.checkpoint import Checkpoint
from tests.support.lookup_decoder import ConstantDecoder, opened

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def summary(found: DecodedWindows) -> dict[str, Any]:
    """The same as JSON values."""
    return found.summary()


@pytest.fixture()
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Fewer windows, where their number does not matter."""
    monkeypatch.setattr(pipeline, "WINDOWS", 20)
    return 20


def rows_of(found: DecodedWindows, dataset: Dataset) -> np.ndarray:
    """Row of each window's true next chunk."""
    return np.array([dataset.starts[dataset.doc_ids.index(q.doc_id)] + q.chunk_index for q in found.arms.windows])


def test_a_hundred_windows_of_the_split_stand_beside_their_own_texts(found: DecodedWindows, dataset: Dataset) -> None:
    rows = rows_of(found, dataset)
    assert len(set(rows)) == len(rows) == WINDOWS
    assert set(dataset.doc_splits[dataset.row_doc[rows]]) == {"val"}
    for row, window in zip(rows, found.arms.windows, strict=True):
        assert [*window.context, window.truth] == dataset.texts(np.arange(row - 5, row + 1))
        assert dataset.row_doc[row - 5] == dataset.row_doc[row], "a context never reaches into another document"


def test_the_oracle_reads_every_true_chunk_and_the_model_is_left_to_blame(found: DecodedWindows, summary: dict[str, Any]) -> None:
    assert summary["available"] is True
    a, c = summary["arms"]["A"], summary["arms"]["C"]
    assert (a["exact"], a["bleu"], a["token_f1"]) == pytest.approx((1, 100, 1))
    assert a["roundtrip_cosine"] > 0.999 > c["roundtrip_cosine"]
    assert c["bleu"] < 50
    assert "is due to the model" in found.abc.reason


def test_contexts_and_true_chunks_are_embedded_again(few: int, dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder) -> None:
    class Counting:
        recipe, tokenizer, dtype, group = encoder.recipe, encoder.tokenizer, encoder.dtype, encoder.group
        seen: set[str] = set()  # noqa: RUF012

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            self.seen |= set(texts)
            return encoder.encode(texts)

    loaded = replace(opened(ConstantDecoder(encoder), dataset), decoder=ConstantDecoder(Counting()))
    found = decode_windows(dataset, checkpoint, loaded, "val")
    assert len(found.arms.windows) == few
    read = {text for window in found.arms.windows for text in (*window.context, window.truth)}
    assert read <= Counting.seen
    neighbours = {chunk.text for chunk in found.arms.nearest}
    assert not Counting.seen & (neighbours - read), "but the neighbours keep the vectors by which they were found"


def test_the_nearest_chunk_is_of_train_and_never_the_answer(found: DecodedWindows, dataset: Dataset) -> None:
    train = {dataset.doc_ids[doc] for doc in dataset.docs("train")}
    for chunk, window in zip(found.arms.nearest, found.arms.windows, strict=True):
        assert chunk.doc_id in train
        assert chunk.text != window.truth
        assert chunk.doc_id != window.doc_id
    assert not set(rows_of(found, dataset)) & set(leaked_rows(dataset, "val", CPU))


def test_the_nearest_chunk_of_all_documents_is_never_of_the_window_s_own(
    few: int, dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder
) -> None:
    found = decode_windows(dataset, checkpoint, opened(ConstantDecoder(encoder), dataset), "all")
    own = [(c, q) for c, q in zip(found.arms.nearest, found.arms.windows, strict=True) if c.doc_id == q.doc_id or c.text == q.truth]
    assert own == []
    train = {dataset.doc_ids[doc] for doc in dataset.docs("train")}
    assert train & {q.doc_id for q in found.arms.windows}, "there were some that it could have been"


def test_decoding_test_documents_is_a_look_at_the_model_as_it_is_evaluated(
    few: int, dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder, tmp_path: Path
) -> None:
    data = replace(dataset, path=tmp_path / "data" / "dataset")
    decode_windows(data, checkpoint, opened(ConstantDecoder(encoder), dataset), "val")
    assert read_looks(data).configurations == {}
    decode_windows(data, checkpoint, opened(ConstantDecoder(encoder), dataset), "test")
    looks = read_looks(data)
    assert len(looks.configurations) == 1 and looks.counts(of_model(checkpoint.config, checkpoint.config.train.context_length))


def test_a_chunk_with_the_answer_s_very_text_is_never_the_nearest_one(
    few: int, dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder
) -> None:
    before = decode_windows(dataset, checkpoint, opened(ConstantDecoder(encoder), dataset), "val")
    chunk = before.arms.nearest[0]
    row = dataset.starts[dataset.doc_ids.index(chunk.doc_id)] + chunk.chunk_index
    repeated, codes = replace(dataset), dataset.text_codes.copy()
    codes[row] = codes[rows_of(before, dataset)[0]]  # as if that chunk said what the answer says
    repeated.__dict__["text_codes"] = codes
    after = decode_windows(repeated, checkpoint, opened(ConstantDecoder(encoder), dataset), "val")
    assert [q.truth for q in after.arms.windows] == [q.truth for q in before.arms.windows]
    assert after.arms.nearest[0] != chunk
    assert chunk.cosine > after.arms.nearest[0].cosine


def test_a_text_is_about_the_next_chunk_as_far_as_its_embedding_is(
    found: DecodedWindows, summary: dict[str, Any], dataset: Dataset
) -> None:
    truth = dataset.vectors[rows_of(found, dataset)]
    last = dataset.vectors[rows_of(found, dataset) - 1]
    about = summary["about"]
    assert about["copy_last"]["value"] == pytest.approx((truth * last).sum(1).mean(), abs=2e-3)
    assert about["A"]["value"] > 0.999
    assert about["nearest"]["value"] == pytest.approx(about["D"]["value"], abs=2e-3), "the oracle decodes its vector into that chunk"
    for other in ("copy_last", "nearest"):
        lead = about[f"C_over_{other}"]
        assert lead["value"] == pytest.approx(about["C"]["value"] - about[other]["value"])
        assert lead["low"] < lead["value"] < lead["high"]


def test_scores_by_length_are_those_of_the_texts_of_that_length(found: DecodedWindows, summary: dict[str, Any]) -> None:
    arms, windows = summary["arms"], found.arms.windows
    assert set(arms) == {"A", "B", "C", "D", "E", "nearest", "copy_last"}
    for name in ("C", "nearest"):
        by_length = arms[name]["by_length"]
        assert sum(bucket["n"] for bucket in by_length.values()) == arms[name]["n"] == len(windows)
        short = [i for i, q in enumerate(windows) if 17 <= q.n_tokens <= 32]
        texts = found.arms.texts(name)
        own = text_scores([texts[i] for i in short], [windows[i].truth for i in short])
        assert (by_length["17-32"]["n"], by_length["17-32"]["bleu"]) == (len(short), pytest.approx(own.bleu))
    assert "roundtrip_cosine" in arms["C"]["by_length"]["17-32"]
    assert "roundtrip_cosine" not in arms["nearest"], "nothing was decoded"


def test_where_the_recipe_makes_unit_length_b_is_a_and_says_so(found: DecodedWindows, summary: dict[str, Any]) -> None:
    arms = summary["arms"]
    assert "B" not in found.arms.decoded
    assert arms["B"] == {**arms["A"], "same_as": "A"}


def test_samples_hold_every_window_s_texts_side_by_side(found: DecodedWindows, summary: dict[str, Any]) -> None:
    samples = summary["samples"]
    assert len(samples) == WINDOWS
    for i in (0, WINDOWS - 1):
        sample = samples[i]
        assert sample["inverted"] == found.arms.decoded["C"][i].text
        assert sample["ceiling"] == sample["truth"]
        assert sample["copy_last"] == sample["context"][-1]
        assert set(sample["nearest"]) == {"text", "doc_id", "chunk_index", "source", "cosine"}


def test_the_summary_is_json(summary: dict[str, Any]) -> None:
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert [gate["name"] for gate in summary["gates"]] == ["encoder_contract", "decoder_abc"]
    assert (summary["windows"], summary["context_length"], summary["split"]) == (WINDOWS, 5, "val")


def test_a_decoder_that_cannot_read_makes_decoding_unavailable_but_refuses_nothing(
    few: int, dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder
) -> None:
    summary = decode_windows(dataset, checkpoint, opened(ConstantDecoder(encoder), dataset), "val").summary()
    assert summary["available"] is False
    assert summary["arms"]["A"]["distinct_2"] < 0.06, "one text for everything shows"


def test_stored_vectors_of_another_encoder_are_refused_before_anything_is_decoded(
    dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder
) -> None:
    shuffled = replace(dataset, vectors=np.random.default_rng(0).permutation(np.array(dataset.vectors)))
    with pytest.raises(GateRefused, match="encoder_contract: 64 chunks"):
        decode_windows(shuffled, checkpoint, opened(Never(encoder), shuffled), "val")


def test_a_model_of_another_recipe_is_refused(dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder) -> None:
    other = encoder.recipe.model_copy(update={"pooling": "cls"})
    foreign = replace(checkpoint, config=checkpoint.config.model_copy(update={"recipe": other}))
    with pytest.raises(InputError, match="pooling: cls against mean"):
        decode_windows(dataset, foreign, opened(Never(encoder), dataset), "val")


def test_the_context_is_five_or_what_the_model_is_compared_at_when_that_is_less(
    few: int, dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder
) -> None:
    assert checkpoint.config.train.context_length == 3
    for asked, used in ((None, 3), (2, 2), (20, 5)):
        found = decode_windows(dataset, checkpoint, opened(ConstantDecoder(encoder), dataset), "val", asked)
        assert {len(window.context) for window in found.arms.windows} == {used}


class Never(ConstantDecoder):
    """A decoder that must not be asked."""

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        raise AssertionError("decoded, and should have been refused")


class Recording(ConstantDecoder):
    """Notes what it is given; its recipe does not make unit length."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.recipe = encoder.recipe.model_copy(update={"normalize": False})
        self.given: list[np.ndarray] = []

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        self.given.append(vectors)
        return super().decode(vectors)


def test_each_arm_decodes_the_vectors_that_it_is_named_for(encoder: Encoder) -> None:
    true, y_dec, real = np.random.default_rng(0).normal(size=(3, 4, encoder.recipe.dim)).astype(np.float32)
    decoder = Recording(encoder)
    decoded = decode_arms(decoder, true, y_dec, real, norm=3.0)
    given = dict(zip(decoded, decoder.given, strict=True))
    assert sorted(given) == ["A", "B", "C", "D", "E"]
    for arm, vectors in {"A": true, "C": y_dec, "D": real}.items():
        assert np.array_equal(given[arm], vectors)
    for arm, vectors, norm in (("B", true, 1.0), ("E", y_dec, 3.0)):
        assert np.linalg.norm(given[arm], axis=1) == pytest.approx(np.full(4, norm), rel=1e-5)
        cosine = (given[arm] * vectors).sum(1) / (norm * np.linalg.norm(vectors, axis=1))
        assert cosine == pytest.approx(np.ones(4), rel=1e-5), "the direction stays"


def test_the_encoder_s_norm_is_that_of_its_vectors(dataset: Dataset, checkpoint: Checkpoint) -> None:
    train = np.linalg.norm(dataset.vectors[dataset.rows("train")], axis=1).mean()
    assert encoder_norm(checkpoint.model) == pytest.approx(train, rel=1e-3)
