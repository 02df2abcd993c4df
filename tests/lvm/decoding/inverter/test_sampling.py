"""A round's texts are chunks, random spans of them and splices of two, and never a held-out text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvm.data.dataset import Dataset
from lvm.decoding.inverter.sampling import SHORTEST_SPAN, draw_probabilities, draw_texts, splice
from lvm.errors import InputError


@pytest.fixture(scope="module")
def texts(dataset: Dataset) -> list[str]:
    return dataset.texts(dataset.rows("train"))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# draw_texts


def test_a_span_is_made_of_consecutive_words_of_a_chunk(texts: list[str]) -> None:
    for text in texts[:40]:
        words = text.split()
        for span in draw_texts([text], 20, 1.0, 0.0, generator()):
            found = span.split()
            assert any(words[i : i + len(found)] == found for i in range(len(words) - len(found) + 1))
            assert len(found) >= min(SHORTEST_SPAN, len(words))


def test_spans_of_every_length_and_place_are_drawn() -> None:
    spans = set(draw_texts(["a b c d e"], 500, 1.0, 0.0, generator()))
    assert spans == {"a b c", "b c d", "c d e", "a b c d", "b c d e", "a b c d e"}


def test_without_spans_texts_are_whole_and_none_comes_twice(texts: list[str]) -> None:
    numbered = [f"{number} {text}" for number, text in enumerate(texts)]
    drawn = draw_texts(numbered, len(numbered), 0.0, 0.0, generator())
    assert drawn != numbered and sorted(drawn) == sorted(numbered)


def test_more_texts_than_there_are_come_again(texts: list[str]) -> None:
    drawn = draw_texts(texts[:5], 200, 0.0, 0.0, generator())
    assert len(drawn) == 200 and set(drawn) == set(texts[:5])


def test_share_of_spans_is_the_one_asked_for(texts: list[str]) -> None:
    long = [text for text in texts if len(text.split()) > 20]
    drawn = draw_texts(long, 2_000, 0.5, 0.0, generator())
    assert np.mean([text not in long for text in drawn]) == pytest.approx(0.5, abs=0.06)


def test_a_text_of_few_words_is_never_cut() -> None:
    assert set(draw_texts(["Fellow citizens:", "three short  words"], 50, 1.0, 0.0, generator())) == {
        "Fellow citizens:",
        "three short  words",
    }


def test_draws_follow_from_the_seed(texts: list[str]) -> None:
    assert draw_texts(texts, 50, 0.5, 0.0, generator(1)) == draw_texts(texts, 50, 0.5, 0.0, generator(1))
    assert draw_texts(texts, 50, 0.5, 0.0, generator(1)) != draw_texts(texts, 50, 0.5, 0.0, generator(2))


def test_no_span_is_a_held_out_text() -> None:
    text, held = "It is so ordered. And it is done", frozenset({"it is so ordered.", "and it is"})
    assert held <= {t.lower() for t in draw_texts([text], 500, 1.0, 0.0, generator())}
    assert not held & {t.lower() for t in draw_texts([text], 500, 1.0, 0.0, generator(), held)}


def test_a_splice_is_the_beginning_of_one_text_and_the_end_of_another() -> None:
    texts = ["a b c", "d e f"]
    drawn = set(draw_texts(texts, 2_000, 0.0, 1.0, generator()))
    parts = [[*"abc"], [*"def"]]
    made = {" ".join([*one[:i], *other[j:]]) for one in parts for other in parts for i in (1, 2, 3) for j in (0, 1, 2)}
    assert drawn == made


@given(st.lists(st.text("ab", min_size=1), min_size=1), st.lists(st.text("cd", min_size=1), min_size=1), st.data())
def test_a_splice_has_a_word_of_each_at_least(one: list[str], other: list[str], data: st.DataObject) -> None:
    place, other_place = (data.draw(st.floats(0, 1, exclude_max=True)) for _ in range(2))
    words = splice(one, other, place, other_place).split()
    cut = next(i for i, word in enumerate(words) if word[0] in "cd")
    assert 0 < cut < len(words) and words[:cut] == one[:cut] and words[cut:] == other[cut - len(words) :]


def test_no_splice_is_a_held_out_text() -> None:
    texts, held = ["We thank", "you all"], frozenset({"we you all", "we thank you all"})
    assert held <= {t.lower() for t in draw_texts(texts, 500, 0.0, 1.0, generator())}
    assert not held & {t.lower() for t in draw_texts(texts, 500, 0.0, 1.0, generator(), held)}


# draw_probabilities


def test_favoured_sources_are_drawn_as_many_times_as_often_as_asked() -> None:
    texts, sources = ["a", "b", "c", "d"], ["sotu", "docs", "docs", "docs"]
    drawn = draw_texts(texts, 8_000, 0.0, 0.0, generator(), probabilities=draw_probabilities(sources, {"sotu": 5.0}))
    assert [drawn.count(text) / 1_000 for text in texts] == pytest.approx([5, 1, 1, 1], abs=0.15)


def test_a_favoured_source_without_texts_is_refused_by_name() -> None:
    with pytest.raises(
        InputError, match=r"field 'decoder.favour' names source 'stou', which no training text comes from; known: sotu, docs"
    ):
        draw_probabilities(["sotu", "docs"], {"stou": 2.0})
