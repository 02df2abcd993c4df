"""Invisible and control characters leave a text before it is cut.

They carry no meaning, but tokenizers make nothing of them, or an unknown token: a line of zero-width spaces would become a chunk without
a token. What leaves is chosen by Unicode category, and where one character has two uses by its neighbours:

- Control characters (Cc) other than white space, and the escape sequences that colour a terminal. The codes 80 to 9F are what text in
  Windows-1252 becomes when it is read as Latin-1; they are read as Windows-1252, as browsers do.
- Format characters (Cf) that only lay text out: soft hyphens, byte-order marks, word joiners, marks of direction, annotations.
- The zero-width space, but not within scripts of South-East Asia, where it is the only sign of where a word ends.
- The joiners (ZWNJ, ZWJ), but not after letters without case, marks and symbols: Persian and Indic words are spelt with them, and emoji
  are built with them. After a Latin, Greek or Cyrillic letter, a digit or a space they do nothing.
- Tags, but not after a black flag: the flags of England, Scotland and Wales are spelt with them.

Everything else stays, among it variation selectors, the visible signs of category Cf (as the Arabic end of ayah), Mongolian vowel
separators, and the private use area: a font or a reader may need them.
"""

import re
import unicodedata

_WINDOWS_1252 = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0) if not chr(code).isspace()}

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # ECMA-48, 5.4

_NEVER_NEEDED = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # Cc
    r"\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0001"  # Cf
    r"\ufffe\uffff]"  # no characters: the byte-order mark of the other byte order, and -1
)

# A flag is matched as a whole, with the tags that spell it.
_BY_NEIGHBOURS = re.compile("\U0001f3f4[\U000e0020-\U000e007f]+|[\u200b-\u200d\U000e0020-\U000e007f]")

_ZERO_WIDTH_SPACE = "\u200b"
_JOINERS = "\u200c\u200d"


def clean(text: str) -> str:
    """`text` without invisible and control characters. Cleaning twice changes nothing more."""
    if _NEVER_NEEDED.search(text):
        text = _NEVER_NEEDED.sub("", _ESCAPE_SEQUENCE.sub("", text).translate(_WINDOWS_1252))
    # Each removal can give a character a new neighbour, as in a row of joiners.
    while (shorter := _BY_NEIGHBOURS.sub(_kept, text)) != text:
        text = shorter
    return text


def _kept(found: re.Match[str]) -> str:
    """What stays of a match: a flag, or the character itself where its neighbours need it."""
    character = found.group()
    before = found.string[found.start() - 1 : found.start()]
    if len(character) > 1 or (character in _JOINERS and _takes_joiner(before)):
        return character
    after = found.string[found.end() : found.end() + 1]
    between_words = bool(before and after) and is_south_east_asian(before) and is_south_east_asian(after)
    return character if character == _ZERO_WIDTH_SPACE and between_words else ""


def _takes_joiner(before: str) -> bool:
    """Whether a joiner after this character can change how it looks: a letter without case, a mark, or a symbol."""
    return bool(before) and unicodedata.category(before) in ("Lo", "Mn", "Mc", "So", "Sk")


def is_south_east_asian(character: str) -> bool:
    """Whether it is of a script of South-East Asia, which writes words without spaces between them."""
    return any(low <= character <= high for low, high in _SOUTH_EAST_ASIAN)


_SOUTH_EAST_ASIAN = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Myanmar
    ("\u1780", "\u17ff"),  # Khmer
    ("\u1950", "\u19df"),  # Tai Le, New Tai Lue
    ("\u1a20", "\u1aaf"),  # Tai Tham
    ("\ua9e0", "\ua9ff"),  # Myanmar Extended-B
    ("\uaa60", "\uaadf"),  # Myanmar Extended-A, Tai Viet
)
