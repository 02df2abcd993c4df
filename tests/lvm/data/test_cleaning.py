"""Invisible and control characters leave a text; what a script or an emoji is spelt with stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvm.data.cleaning import clean


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("pea\u200bce", "peace"),  # zero-width space
        ("\u200b\u200c\u200d\ufeff", ""),
        ("com\u00admerce", "commerce"),  # soft hyphen
        ("\u202bpeace\u202c \u200e(1)\u2069", "peace (1)"),  # marks of direction
        ("p\0e\0a\0c\0e\0", "peace"),
        ("\ufeffpeace \u2060and\ufffe", "peace and"),
        ("\x1b[1;31merror:\x1b[0m no peace\x07", "error: no peace"),
        ("don\x92t \x93stop\x94\x81", "don’t “stop”"),  # Windows-1252 read as Latin-1
        ("x\u200d\u200dy 1\u200c2", "xy 12"),  # joiners between Latin letters and digits
        ("hidden\U000e0061\U000e0062\U000e007f", "hidden"),  # tags without a flag
    ],
)
def test_characters_that_nobody_sees_leave(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "می‌روم و نمی‌خواهم",  # Persian: ZWNJ within words
        "क्‍ष और क्‌ष",  # Hindi: ZWJ and ZWNJ decide the form of a conjunct
        "ශ්‍රී ලංකා",  # Sinhala
        "അവന്‍ വന്നു",  # Malayalam: ZWJ at the end of a word
        "👩‍❤️‍👨 👨🏽‍💻 🏳️‍🌈",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
        "ភាសា\u200bខ្មែរ",  # Khmer: the zero-width space divides words
        "ᠮᠣᠩᠭᠣᠯ\u180eᠠ",  # Mongolian vowel separator
        "الله \u06dd١",  # the end of an ayah, a visible sign of category Cf
        "葛\U000e0100城市",  # an ideographic variant
        "one\ttwo\r\nthree\x0cfour\x85five\u2028six",  # white space
    ],
)
def test_what_a_script_or_an_emoji_needs_stays(text: str) -> None:
    assert clean(text) == text


@given(st.text(st.sampled_from("aب क\u094d🐱🏴\u200b\u200c\u200d\u00ad\ufeff\x1b[m\x92\0\U000e0061ก \n"), max_size=20))
def test_cleaning_twice_changes_nothing_more_and_adds_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    visible = "".join(c for c in once if c not in "’\u200b\u200c\u200d\U000e0061")
    rest = iter(text)
    assert all(c in rest for c in visible), "what stays, stays in its order"
