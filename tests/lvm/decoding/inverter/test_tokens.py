"""Every text can be written with the tokenizer, and comes back as it was."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lvm.data.dataset import Dataset
from lvm.decoding.inverter.model import EOS, PAD
from lvm.decoding.inverter.tokens import decode_tokens, encode_texts, train_tokenizer
from lvm.errors import InputError

MANY = 10_000


@pytest.fixture(scope="module")
def tokenizer(dataset: Dataset) -> Tokenizer:
    return train_tokenizer(dataset.texts(np.arange(500)), 500)


@pytest.fixture(scope="module")
def reloaded(tokenizer: Tokenizer) -> Tokenizer:
    """As a decoder's folder holds it."""
    return Tokenizer.from_str(tokenizer.to_str())


def there_and_back(tokenizer: Tokenizer, text: str) -> str:
    return decode_tokens(tokenizer, encode_texts(tokenizer, [text], MANY)[0][None])[0]


@given(text=st.text())
@example(text="The State of the Union — naïve, 日本語, 🙂\n\ttwo  spaces")
@example(text="<s>struck</s> out, <pad> too: </s> is no end")
@example(text="")
def test_any_text_comes_back_as_it_was_but_for_white_space_around_it(tokenizer: Tokenizer, reloaded: Tokenizer, text: str) -> None:
    assert there_and_back(tokenizer, text) == text.strip()
    assert there_and_back(reloaded, text) == text.strip()


@given(st.text())
def test_no_text_yields_the_two_reserved_tokens(tokenizer: Tokenizer, text: str) -> None:
    ids = encode_texts(tokenizer, [text], MANY)[0].tolist()
    assert ids[-1] == EOS and not {PAD, EOS} & set(ids[:-1])


def test_texts_that_are_full_of_the_reserved_names_do_not_teach_them() -> None:
    marked = ["</s> <pad> <pad></s> the end"] * 200
    tokenizer = train_tokenizer([*marked, *(f"word{i} thing{i * 7}" for i in range(400))], 300)
    assert there_and_back(tokenizer, marked[0]) == marked[0]
    assert encode_texts(tokenizer, [marked[0]], MANY)[0].tolist().count(EOS) == 1


def test_real_text_takes_fewer_tokens_than_bytes(tokenizer: Tokenizer, dataset: Dataset) -> None:
    texts = dataset.texts(dataset.rows("test")[:50])
    tokens = sum(len(ids) for ids in encode_texts(tokenizer, texts, MANY))
    assert tokens < 0.6 * sum(len(text.encode()) for text in texts)


@given(st.text(max_size=60), st.integers(1, 20))
def test_a_text_beyond_the_limit_is_cut_and_has_no_end(tokenizer: Tokenizer, text: str, limit: int) -> None:
    whole, cut = (encode_texts(tokenizer, [text], n)[0].tolist() for n in (MANY, limit))
    assert cut == whole[:limit]
    assert (EOS in cut) == (len(whole) <= limit)


def test_what_follows_the_end_is_left_out_and_padding_too(tokenizer: Tokenizer) -> None:
    hello, more = (encode_texts(tokenizer, [text], MANY)[0][:-1].tolist() for text in ("Fellow citizens", "of the Senate"))
    rows = [[*hello, EOS, *more], [*hello, *more, EOS], [PAD, *hello, PAD, EOS]]
    width = max(map(len, rows))
    padded = np.array([row + [PAD] * (width - len(row)) for row in rows])
    assert decode_tokens(tokenizer, padded) == ["Fellow citizens", "Fellow citizens of the Senate", "Fellow citizens"]
    assert decode_tokens(tokenizer, np.array([hello])) == ["Fellow citizens"], "without an end it is all text"


def test_a_corpus_too_small_for_the_vocabulary_is_refused_and_the_number_that_it_names_works() -> None:
    texts = ["Fellow citizens of the Senate and of the House of Representatives."]
    with pytest.raises(
        InputError, match=r"field 'decoder.model.vocabulary' is 7680.*--set decoder.model.vocabulary=(\d+) or more text"
    ) as refused:
        train_tokenizer(texts, 7_680)
    number = int(str(refused.value).partition("--set decoder.model.vocabulary=")[2].split()[0])
    assert train_tokenizer(texts, number).get_vocab_size() == number


def test_training_twice_gives_the_same_tokenizer(dataset: Dataset, tokenizer: Tokenizer) -> None:
    assert train_tokenizer(dataset.texts(np.arange(500)), 500).to_str() == tokenizer.to_str()
