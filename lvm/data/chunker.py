"""Text to chunks: a sentence a chunk, no chunk longer than a budget, and none that the encoder cannot read.

Text is cleaned of invisible characters, and hard wrapping is undone. Sentences are found by `sentencex`, Wikimedia's segmenter. A
sentence over the budget is cut by `semantic-text-splitter` at the largest semantic boundary that fits: clause, then word, then character.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import sentencex
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer

from lvm.config import ChunkerConfig
from lvm.data.cleaning import clean
from lvm.data.readable import Legibility, Reader
from lvm.data.unwrapping import paragraphs, paragraphs_of_version_1

RULES = 2
"""Version of the rules by which text is cut. Version 1 cleaned nothing, told wrapping by case, and kept what the encoder cannot read."""

MAX_CHARACTERS = 3000
"""Most characters of a chunk. A thousand of them can be one token, when it is unknown."""


@dataclass(frozen=True)
class Chunk:
    """A piece of text, and its length in the encoder's tokens without special tokens."""

    text: str
    n_tokens: int


@dataclass(frozen=True)
class Cut:
    """A text in pieces."""

    chunks: list[Chunk]
    """Those that the encoder can read, in reading order."""

    unreadable: list[str]
    """Those that are left out: they hold no token, or mostly unknown ones."""


class Chunker:
    """Cuts the text of a document into chunks, in reading order."""

    def __init__(self, config: ChunkerConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self._reader = Reader(tokenizer)
        self._by_tokens = TextSplitter.from_huggingface_tokenizer(tokenizer, config.max_tokens)
        self._by_characters = TextSplitter(MAX_CHARACTERS)
        self._known_words: set[str] = set()

    def __call__(self, text: str) -> list[Chunk]:
        """The chunks of `text` that the encoder can read; an empty list when there is none."""
        return self.cut(text).chunks

    def cut(self, text: str | Sequence[str]) -> Cut:
        """The chunks of `text`, and the pieces that the encoder cannot read.

        Of text that was cut already, given as its pieces in order, each piece is a chunk, without those that are blank; only one over the
        budget is cut.
        """
        if isinstance(text, str):
            return self._sort(self._fit(self._sentences(paragraphs(clean(text)))))
        pieces = (" ".join(clean(piece).split()) for piece in text)
        return self._sort(self._fit([piece for piece in pieces if piece]))

    def cuts_as_version_1(self, text: str | Sequence[str]) -> bool:
        """Whether `text` has the chunks that the first version of these rules gave it: the same lines joined, nothing left out.

        Only a text that holds a word with an unknown token is cut for that. That version did not take text in pieces.
        """
        if not isinstance(text, str):
            return False
        lines = paragraphs_of_version_1(text)
        if clean(text) != text or paragraphs(text) != lines:
            return False
        words = list(set(text.split()) - self._known_words)
        readings = dict(zip(words, self._reader.read(words), strict=True))
        known = {word for word, reading in readings.items() if reading.n_tokens and not reading.unknown}
        self._known_words |= known
        if len(known) == len(words):
            return True
        sentences = self._sentences(lines)
        pieces = self._fit(sentences)
        return pieces == self._fit(sentences, math.inf) and not self._sort(pieces).unreadable

    def _sentences(self, paragraphs: list[str]) -> list[str]:
        found = (sentence for paragraph in paragraphs for sentence in sentencex.segment(self.config.language, paragraph))
        return [" ".join(sentence.split()) for sentence in found if sentence.strip()]

    def _fit(self, texts: list[str], max_characters: float = MAX_CHARACTERS) -> list[tuple[str, Legibility]]:
        """The texts with what the encoder makes of them; those over the budget in pieces."""
        out = []
        for text, reading in zip(texts, self._reader.read(texts), strict=True):
            pieces = [text]
            if reading.n_tokens > self.config.max_tokens:
                pieces = self._by_tokens.chunks(text)
            elif len(text) > max_characters:
                pieces = self._by_characters.chunks(text)
            # A piece of fewer characters can have more tokens: the rest of an unknown word may be known.
            out += [(text, reading)] if pieces == [text] else self._fit(pieces, max_characters)
        return out

    def _sort(self, pieces: list[tuple[str, Legibility]]) -> Cut:
        chunks = [Chunk(text, reading.n_tokens) for text, reading in pieces if reading.readable]
        return Cut(chunks, [text for text, reading in pieces if not reading.readable])
