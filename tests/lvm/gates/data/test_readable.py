"""The gate `readable` passes chunks that the encoder tells apart, and fails those that it cannot read, naming documents and script."""

from pathlib import Path

import numpy as np
import pytest

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.gates.data.duplicates import duplicates
from lvm.gates.data.readable import confused_rows, mostly_unknown, readable
from tests.support.poisoned_data import Poison, changed, column, failed, unread

LIMITS = GateThresholds()


def test_real_text_is_read(dataset: Dataset) -> None:
    result = readable(dataset, LIMITS)
    assert (result.severity, result.value) == ("ok", 0.0)
    assert result.reason == "0 chunks have the vector of another text, 0 are mostly unknown tokens"


@pytest.mark.parametrize(("share", "passes"), [(0.01, True), (0.03, False)])
def test_few_texts_of_one_vector_pass_and_more_do_not(
    dataset: Dataset, encoder: Encoder, tmp_path: Path, share: float, passes: bool
) -> None:
    rows = np.random.default_rng(0).choice(dataset.n_rows, int(share * dataset.n_rows), replace=False)
    spoilt = unread(dataset, encoder, tmp_path, rows)
    assert confused_rows(spoilt).tolist() == sorted(rows)
    result = readable(spoilt, LIMITS)
    assert result.passed is passes and result.value == pytest.approx(share, abs=0.002)
    if not passes:
        reason = failed(result)
        assert "minilm cannot read them" in reason and "an encoder that knows Thai" in reason
        assert dataset.doc_ids[np.bincount(dataset.row_doc[rows]).argmax()] in reason


def test_text_of_far_fewer_tokens_than_it_needs_is_found(dataset: Dataset, tmp_path: Path) -> None:
    texts, lengths = column(dataset, "text"), column(dataset, "n_tokens")
    rows = list(range(5, dataset.n_rows, 20))
    for number, row in enumerate(rows):
        texts[row], lengths[row] = f"{number:064x}" * 19, 1
    lengths[7] = 0
    spoilt = changed(dataset, tmp_path, columns={"text": texts, "n_tokens": lengths})
    assert mostly_unknown(spoilt).tolist() == sorted([*rows, 7])
    assert "are mostly unknown tokens" in failed(readable(spoilt, LIMITS))


def test_copies_and_texts_that_differ_in_case_accents_or_space_are_not_confused(dataset: Dataset, tmp_path: Path, poisoned: Poison) -> None:
    vectors, texts = np.array(dataset.vectors), column(dataset, "text")
    for row, text in ((3, texts[2]), (20, texts[2].upper()), (40, f" {texts[2]}\u0301 ")):
        vectors[row], texts[row] = vectors[2], text
    assert not len(confused_rows(poisoned(vectors, {"text": texts})))


def test_vectors_that_differ_by_rounding_alone_are_equal_and_others_are_not(dataset: Dataset, poisoned: Poison) -> None:
    noise = np.random.default_rng(0).standard_normal(dataset.dim)
    vectors = np.array(dataset.vectors)
    vectors[50:60] = vectors[50] + 1e-8 * noise
    vectors[70:80] = vectors[70] + 3e-2 * np.random.default_rng(1).standard_normal((10, dataset.dim))
    assert confused_rows(poisoned(vectors)).tolist() == list(range(50, 60))


def test_zero_and_broken_vectors_are_left_to_duplicates(dataset: Dataset, poisoned: Poison) -> None:
    vectors = np.array(dataset.vectors)
    vectors[::10], vectors[1::10] = 0, np.nan
    assert readable(poisoned(vectors), LIMITS).passed


def test_duplicates_names_the_encoder_where_unequal_texts_have_one_vector(dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    spoilt = unread(dataset, encoder, tmp_path, np.arange(dataset.n_rows))
    reason = failed(duplicates(spoilt, LIMITS))
    assert "the encoder cannot tell their texts apart" in reason and "choose an encoder that reads these texts" in reason
    assert "stored twice" not in reason and "extract again" not in reason
