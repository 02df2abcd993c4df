"""The text metrics are what their names say: bounded, full marks for the same text, none for another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.data.dataset import Dataset
from lvm.decoding.text_metrics import distinct_2, length_buckets, repetition, text_scores, token_f1, words

sentences = (
    st.lists(
        st.sampled_from(["we", "the", "people", "of", "a", "more", "perfect", "union", ",", "and", "do", "it", "."]),
        min_size=4,
        max_size=20,
    )
    .map(" ".join)
    .filter(lambda text: any(map(str.isalpha, text)))  # ROUGE knows no commas
)
texts = st.lists(st.one_of(sentences, st.text(max_size=30)), min_size=1, max_size=6)
some = settings(max_examples=25, deadline=None)


@some
@given(st.data(), texts)
def test_every_score_is_within_its_bounds(data: st.DataObject, references: list[str]) -> None:
    found = text_scores(
        data.draw(st.lists(st.one_of(sentences, st.text(max_size=30)), min_size=len(references), max_size=len(references))), references
    )
    assert found.n == len(references)
    assert 0 <= found.bleu <= 100 + 1e-9
    for name in ("token_f1", "rouge_l", "exact", "distinct_2", "repetition"):
        assert 0 <= getattr(found, name) <= 1 + 1e-9, name


@some
@given(st.lists(sentences, min_size=1, max_size=6))
def test_the_same_texts_score_full_marks(found: list[str]) -> None:
    scores = text_scores(found, found)
    assert (scores.bleu, scores.token_f1, scores.rouge_l, scores.exact) == pytest.approx((100, 1, 1, 1))


@some
@given(st.lists(sentences, min_size=1, max_size=6))
def test_texts_without_a_word_in_common_score_nothing(found: list[str]) -> None:
    scores = text_scores(["zebra yonder xylem wharf"] * len(found), found)
    assert (scores.bleu, scores.token_f1, scores.rouge_l, scores.exact) == (0, 0, 0, 0)


@some
@given(st.lists(st.tuples(sentences, sentences), min_size=2, max_size=6), st.randoms())
def test_the_order_of_the_pairs_does_not_matter(pairs: list[tuple[str, str]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    mine, theirs = (vars(text_scores(*map(list, zip(*some_pairs, strict=True)))) for some_pairs in (pairs, shuffled))  # type: ignore[arg-type]
    assert mine == pytest.approx(theirs)


@some
@given(sentences, sentences)
def test_token_f1_is_that_of_sets_and_the_same_both_ways(one: str, other: str) -> None:
    a, b = set(words(one)), set(words(other))
    precision, recall = len(a & b) / len(a), len(a & b) / len(b)
    assert token_f1(words(one), words(other)) == pytest.approx(2 * precision * recall / ((precision + recall) or 1))
    assert token_f1(words(one), words(other)) == token_f1(words(other), words(one)) == token_f1(words(one) * 2, words(other))


def test_words_keep_case_and_count_punctuation() -> None:
    assert words("We don't know, Mr. President.") == ["We", "do", "n't", "know", ",", "Mr.", "President", "."]
    assert token_f1(words("The navy"), words("the navy")) == 0.5


def test_word_order_moves_bleu_and_rouge_but_not_token_f1() -> None:
    reference = ["the navy protects our commerce on every sea"]
    turned = [" ".join(reversed(reference[0].split()))]
    scores = text_scores(turned, reference)
    assert scores.token_f1 == 1 and scores.rouge_l < 0.5 and scores.bleu < 10


def test_one_better_text_moves_every_score_up() -> None:
    references = ["the navy protects our commerce", "the treasury paid the public debt"]
    poor = text_scores(["the army marched", "nothing was paid"], references)
    better = text_scores(["the army marched", "the treasury paid the public debt"], references)
    for name in ("bleu", "token_f1", "rouge_l", "exact"):
        assert getattr(better, name) > getattr(poor, name), name


def test_repetition_is_the_share_of_four_grams_that_stood_before() -> None:
    assert repetition(list("abcd")) == 0
    assert repetition(list("abc")) == 0
    assert repetition(list("abcdabcd")) == pytest.approx(1 / 5)
    assert repetition(["the"] * 8) == pytest.approx(4 / 5)


def test_distinct_2_is_the_share_of_different_bigrams_of_all_texts() -> None:
    assert distinct_2([["a", "b", "c"], ["a", "b", "c"]]) == 0.5
    assert distinct_2([["a", "b", "c"], ["c", "b", "a"]]) == 1
    assert distinct_2([[], ["a"]]) == 1


def test_real_text_hardly_repeats_itself(dataset: Dataset) -> None:
    found = dataset.texts(np.arange(200))
    scores = text_scores(found, found)
    assert scores.repetition < 0.02 and scores.distinct_2 > 0.7


@pytest.mark.parametrize(
    ("length", "bucket"), [(1, "1-16"), (16, "1-16"), (17, "17-32"), (32, "17-32"), (33, "33-64"), (64, "33-64"), (65, "65+")]
)
def test_a_length_stands_in_its_bucket(length: int, bucket: str) -> None:
    assert list(length_buckets(np.array([length]))) == [bucket]


@given(st.lists(st.integers(1, 200), min_size=1))
def test_every_text_stands_in_one_bucket(lengths: list[int]) -> None:
    found = length_buckets(np.array(lengths))
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(lengths)))


def test_texts_without_their_references_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than argument 1"):
        text_scores(["a"], ["a", "b"])
