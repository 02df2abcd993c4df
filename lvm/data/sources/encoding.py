"""Bytes to text: UTF-8 where it is valid, otherwise what a byte-order mark or charset-normalizer says."""

import codecs
import re

from lvm.data.sources.optional import needed

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16: its mark begins with that of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

CANDIDATES = [
    *("utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be", "koi8_r", "koi8_u", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp874"),
    *(f"cp125{digit}" for digit in range(9)),
]
"""The encodings that the web still knows (WHATWG's list, without the Macintosh's). With rarer ones short texts are mistaken more often."""

DECLARED = re.compile(rb"<meta[^>]{1,200}charset=[\"']?([\w-]{2,20})", re.IGNORECASE)
NUL_SHARE = 0.2
"""ASCII text has a NUL in every second byte as UTF-16, and three in four as UTF-32; stray ones in UTF-8 are far fewer."""


class UnknownEncodingError(ValueError):
    """The bytes are no text in an encoding that is recognised; the message is the reason."""


def marked(start: bytes) -> str | None:
    """The encoding that the byte-order mark at the beginning declares, if there is one."""
    return next((encoding for mark, encoding in MARKS.items() if start.startswith(mark)), None)


def decode(data: bytes, html: bool = False) -> tuple[str, str]:
    """The text and the name of its encoding, "utf-8" for UTF-8. With `html`, a `<meta charset>` is believed where it fits.

    Raises `UnknownEncodingError`.
    """
    encoding = marked(data)
    if encoding:
        return _strictly(data, encoding), "utf-8" if encoding == "utf-8-sig" else encoding
    broken_at = None
    try:
        text = data.decode("utf-8")
        if data.count(0) <= NUL_SHARE * len(data):
            return text, "utf-8"
    except UnicodeDecodeError as error:
        broken_at = error.start
    declared = DECLARED.search(data[:1024]) if html else None
    if declared:
        try:
            return data.decode(declared[1].decode()), declared[1].decode().lower()
        except (UnicodeDecodeError, LookupError):
            pass  # a declaration that does not fit is no better than none
    if broken_at is not None and _is_mostly_utf8(data):
        raise UnknownEncodingError(f"broken UTF-8: at byte {broken_at}")
    return _guessed(data)


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnknownEncodingError(f"broken {encoding.removesuffix('-sig').upper()}: at byte {error.start}") from error


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether more characters beyond ASCII are sound UTF-8 than broken: then the file is a damaged one, not one in another encoding."""
    text = data.decode("utf-8", "replace")
    broken = text.count("\N{REPLACEMENT CHARACTER}")
    return sum(not character.isascii() for character in text) > 2 * broken


def _guessed(data: bytes) -> tuple[str, str]:
    """What charset-normalizer finds. Western European text also looks like Central European: where both fit, it is the former."""
    found = list(needed("charset_normalizer", "a file that is not UTF-8").from_bytes(data, cp_isolation=CANDIDATES))
    if not found:
        raise UnknownEncodingError("no text: in no encoding that is recognised")
    likely = [match for match in found if match.chaos <= found[0].chaos]
    western = [match for match in likely if "cp1252" in match.could_be_from_charset]
    encoding = "cp1252" if western else found[0].encoding
    return data.decode(encoding), encoding
