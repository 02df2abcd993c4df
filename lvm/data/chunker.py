"""Text to chunks: a sentence a chunk, and no chunk longer than a budget of tokens.

Sentences are found by `sentencex`, Wikimedia's segmenter. A sentence over the budget is cut by `semantic-text-splitter` at the
largest semantic boundary that fits: clause, then word, then character.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import sentencex
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer

from lvm.config import ChunkerConfig


@dataclass(frozen=True)
class Chunk:
    """A piece of text, and its length in the encoder's tokens without special tokens."""

    text: str
    n_tokens: int


class Chunker:
    """Cuts the text of a document into chunks, in reading order."""

    def __init__(self, config: ChunkerConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._splitter = TextSplitter.from_huggingface_tokenizer(tokenizer, config.max_tokens)

    def __call__(self, text: str) -> list[Chunk]:
        """The chunks of `text`; an empty list when it is only white space."""
        sentences = [
            " ".join(sentence.split())
            for paragraph in paragraphs(text)
            for sentence in sentencex.segment(self.config.language, paragraph)
            if sentence.strip()
        ]
        return self._fit(sentences)

    def pieces(self, texts: Sequence[str]) -> list[Chunk]:
        """Chunks of text that was cut already: each of `texts` is one, without those that are blank; one over the budget is cut."""
        return self._fit([joined for text in texts if (joined := " ".join(text.split()))])

    def _fit(self, sentences: Sequence[str]) -> list[Chunk]:
        chunks = []
        for sentence, n_tokens in zip(sentences, self._lengths(sentences), strict=True):
            if n_tokens <= self.config.max_tokens:
                chunks.append(Chunk(sentence, n_tokens))
            else:
                pieces = self._splitter.chunks(sentence)
                chunks += [Chunk(p, n) for p, n in zip(pieces, self._lengths(pieces), strict=True)]
        return chunks

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]


def paragraphs(text: str) -> list[str]:
    """The paragraphs of `text`. Hard wrapping is undone.

    Where text was wrapped at a fixed width, most line breaks inside a block are followed by a lower-case letter. Only then are the
    lines of a block joined. Otherwise every line is a paragraph, as in corpora with a paragraph or a sentence on each line.
    """
    unix = text.replace("\r\n", "\n")
    blocks = [[line.strip() for line in block.splitlines() if line.strip()] for block in re.split(r"\n\s*\n", unix)]
    continuations = [line for block in blocks for line in block[1:]]
    lower = sum(line[0].islower() for line in continuations)
    if continuations and lower > len(continuations) / 2:
        return [" ".join(block) for block in blocks if block]
    return [line for block in blocks for line in block]
