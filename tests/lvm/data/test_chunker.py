import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import ChunkerConfig, parse
from lvm.data.chunker import MAX_CHARACTERS, Chunker, Cut
from lvm.data.cleaning import clean
from lvm.data.sources import Document, iter_source
from lvm.errors import InputError

WORDS = st.sampled_from(
    ["The", "public", "treasury", "Mr.", "U.S.", "incontrovertibly", "1,234.5", "(as", "was)", "'tis", "naïve", "—", "漢字", "x"]
)
SENTENCES = st.builds(lambda words, end: " ".join(words) + end, st.lists(WORDS, min_size=1, max_size=30), st.sampled_from(".!?;"))
TEXTS = st.builds(lambda parts, gap: gap.join(parts), st.lists(SENTENCES, max_size=6), st.sampled_from([" ", "\n", "\n\n", "\r\n", "  "]))


def letters(text: str) -> str:
    return "".join(text.split())


def check(cut: Cut, text: str, budget: int, tokenizer) -> None:
    assert sorted(letters("".join([*(chunk.text for chunk in cut.chunks), *cut.unreadable]))) == sorted(letters(clean(text)))
    for chunk in cut.chunks:
        assert chunk.text == chunk.text.strip() != ""
        assert 0 < chunk.n_tokens == len(tokenizer.encode(chunk.text, add_special_tokens=False)) <= budget
        assert len(chunk.text) <= MAX_CHARACTERS


@pytest.fixture(scope="module")
def chunkers(encoder) -> dict[int, Chunker]:
    """A chunker for each budget. It takes longer to make than to use."""
    return {budget: Chunker(ChunkerConfig(max_tokens=budget), encoder.tokenizer) for budget in (8, 13, 64)}


@settings(deadline=None, max_examples=80)
@given(text=TEXTS, budget=st.sampled_from([8, 13, 64]))
def test_no_chunk_exceeds_the_budget_and_no_character_is_lost(encoder, chunkers, text, budget):
    check(chunkers[budget].cut(text), text, budget, encoder.tokenizer)


@settings(deadline=None, max_examples=80)
@given(text=st.text(max_size=150))
def test_budget_holds_for_any_characters(encoder, chunkers, text):
    check(chunkers[8].cut(text), text, 8, encoder.tokenizer)


def test_real_address_is_cut_without_loss_into_sentences(encoder, chunkers):
    text = next(item.text for item in iter_source("builtin:sotu") if isinstance(item, Document))
    cut = chunkers[64].cut(text)
    check(cut, text, 64, encoder.tokenizer)
    chunks = cut.chunks
    assert letters("".join(chunk.text for chunk in chunks)) == letters(text)
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


def test_no_chunk_is_without_a_token_and_invisible_characters_leave_first(chunkers):
    text = "The treasury\u200b is full.\n\u200b\u200c\u200d\n\u0301\nCom\u00admerce\0 grows."
    cut = chunkers[64].cut(text)
    assert [c.text for c in cut.chunks] == ["The treasury is full.", "Commerce grows."]
    assert cut.unreadable == ["\u0301"], "a mark without a letter is no token to this encoder"


@pytest.mark.parametrize("text", ["สวัสดีตอนเช้า 5.", "🐱🐱🐱🐱", f"sha {'0123456789abcdef' * 75}", "x" * 5000])
def test_text_that_is_mostly_unknown_tokens_is_left_out_and_listed(chunkers, text):
    cut = chunkers[64].cut(f"The treasury is full.\n{text}")
    assert [chunk.text for chunk in cut.chunks] == ["The treasury is full."]
    assert letters("".join(cut.unreadable)) == letters(text) and max(map(len, cut.unreadable)) <= MAX_CHARACTERS


def test_text_with_a_few_unknown_tokens_stays(chunkers):
    text = "Thanks 🙏\nThe word สวัสดี greets the treasury."
    cut = chunkers[64].cut(text)
    assert [chunk.text for chunk in cut.chunks] == text.split("\n") and not cut.unreadable


def test_chunk_of_many_characters_and_few_tokens_is_cut(chunkers):
    words = " ".join(["peace"] * 5 + ["x" * 120] * 30)  # each of the long words is one unknown token
    pieces = chunkers[64].cut(words)
    assert len(words) > MAX_CHARACTERS and max(map(len, pieces.unreadable)) <= MAX_CHARACTERS


def test_text_that_is_cut_already_keeps_its_pieces(chunkers):
    cut = chunkers[13].cut(["Peace. And\ncommerce.", " ", "\u200b", "peace " * 20])
    assert [chunk.text for chunk in cut.chunks[:1]] == ["Peace. And commerce."]
    assert " ".join(chunk.text for chunk in cut.chunks[1:]).split() == ["peace"] * 20


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The treasury is full.\nCommerce grows.", True),
        ("Thanks 🙏", True),  # unknown, but not left out by this version either
        ("The treasury\u200b is full.", False),
        ("the treasury is full\ncommerce grows\nlike corn", False),  # was joined
        ("The treasury is full.\n🐱🐱", False),
        ("The treasury is full.\n\u0301", False),
        (["The treasury is full."], False),
    ],
)
def test_it_is_known_which_texts_version_1_cut_alike(chunkers, text, same):
    assert chunkers[64].cuts_as_version_1(text) is same
    assert chunkers[64].cuts_as_version_1(text) is same, "words that are known by now make no difference"


@pytest.mark.parametrize("values", [{"max_tokens": 7}, {"max_tokens": 513}, {"max_tokens": "many"}, {"overlap": 4}])
def test_impossible_or_unknown_setting_is_refused_by_name(values):
    with pytest.raises(InputError, match=next(iter(values))):
        parse(ChunkerConfig, values)
