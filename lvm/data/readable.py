"""What an encoder can read of a text: how many tokens it makes of it, and how many of them are unknown to it.

A tokenizer gives one and the same token to every word that it has no pieces for: a word of another script, an emoji, a line of a thousand
hexadecimal digits. Texts of such words have equal vectors, whatever they say.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

UNREADABLE = 0.5
"""A text is unreadable when unknown tokens stand for more than this share of it."""

SAMPLE = 24
"""Characters of a text that a message shows."""


@dataclass(frozen=True)
class Legibility:
    """What an encoder makes of a text."""

    n_tokens: int
    """Its tokens, without special ones."""

    unknown: float
    """Share of its characters, white space left out, that unknown tokens stand for. One of them may stand for a thousand."""

    @property
    def readable(self) -> bool:
        """Whether there is a token at all, and the encoder knows at least half of the text."""
        return self.n_tokens > 0 and self.unknown <= UNREADABLE


class Reader:
    """Reads texts with the tokenizer of an encoder."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._unknown = _unknown_token(tokenizer)

    def read(self, texts: Sequence[str]) -> list[Legibility]:
        """What the encoder makes of each text."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [Legibility(len(one.ids), self._share(one, text)) for one, text in zip(found, texts, strict=True)]

    def first_unreadable(self, texts: Sequence[str], encoder: str) -> tuple[int, str] | None:
        """The number of the first text that the encoder, of this name, cannot read, and the sentence that says so; None without one."""
        for number, (text, reading) in enumerate(zip(texts, self.read(texts), strict=True)):
            if not reading.readable:
                return number, cannot_read(encoder, script_of([text]), "the text is", sample_of(text))
        return None

    def _share(self, found: Encoding, text: str) -> float:
        ids = found.ids
        if self._unknown is None or self._unknown not in ids:
            return 0.0
        unknown = sum(stop - start for number, (start, stop) in zip(ids, found.offsets, strict=True) if number == self._unknown)
        return unknown / max(len("".join(text.split())), 1)


def _unknown_token(tokenizer: Tokenizer) -> int | None:
    """The id of the unknown token; None for a tokenizer that has pieces for every text, such as bytes."""
    model = json.loads(tokenizer.to_str())["model"]  # the library shows the token for some of its models only
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None


def script_of(texts: Iterable[str]) -> str:
    """The script, or kind of characters, that most of the letters and symbols of `texts` are of, for messages."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(filter(None, map(_script, text)))
    return counts.most_common(1)[0][0] if counts else "text without letters"


def _script(character: str) -> str:
    """By the character's name, such as THAI CHARACTER KO KAI: the standard library has no table of scripts."""
    category = unicodedata.category(character)
    if category in ("So", "Sk"):
        return "emoji and symbols"
    if category[0] not in "LN":
        return ""
    name = unicodedata.name(character, "")
    if character.isascii() or name.startswith("LATIN"):
        return "words as long as these"  # each letter is known
    if name.startswith(("CJK", "IDEOGRAPHIC")):
        return "Chinese"
    words = name.split()
    known = [n for n, word in enumerate(words) if word in ("LETTER", "CHARACTER", "SYLLABLE", "SIGN", "VOWEL", "DIGIT", "SMALL", "CAPITAL")]
    return " ".join(words[: known[0]] if known else words[:1]).title()


def sample_of(text: str) -> str:
    """The beginning of a text, for messages."""
    return repr(text if len(text) <= SAMPLE else f"{text[:SAMPLE]}…")


def cannot_read(encoder: str, script: str, what: str, sample: str) -> str:
    """What is wrong with input that an encoder cannot read; `what` says how much of it, as "3 of 5 chunks are"."""
    return f"{encoder} reads no {script}: {what} mostly unknown tokens to it, as {sample}"
