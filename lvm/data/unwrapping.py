"""Text to paragraphs: line breaks that only fit a text to a width are undone.

Where text is wrapped, a line ends where the next word would not have fitted: the column *forced* its break. One column explains most
breaks of such a text. Lines that end for another reason, as a sentence a line does, end anywhere. So width tells the two apart in every
script, and also where no letter is upper case.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import pairwise

from lvm.data.cleaning import is_south_east_asian

LEAST_BREAKS = 6
"""Forced breaks that show a width. Fewer agree on a column by chance."""

SHARE = 0.7
"""Share of the breaks within sentences that one column must force."""

RAGGED = 1
"""Columns by which a line may miss the width: text that was wrapped by hand, or in letters of different widths, is uneven."""

FULL = 0.85
"""In a wrapped text a line goes on when it and the next word reach this share of the width."""

WIDEST = 250
"""Columns beyond which no text is wrapped."""

_END = r"[.!?…。！？।]['\"”’)\]»*_`]*"
SENTENCE_END = re.compile(_END + "$")
"""How a line ends that the next one does not continue."""

_SENTENCE_ENDS = re.compile(_END + r"(\s|$)")

# Columns that had to be free for a line to go on, where words are not told apart by spaces: two wide characters, since punctuation may
# not begin a line; a long word of Thai, Lao, Khmer or Burmese.
_WIDE_UNIT, _SOUTH_EAST_ASIAN_UNIT = 4, 12

Break = tuple[str, str]
"""The lines before and after a line break."""


def paragraphs(text: str) -> list[str]:
    """The paragraphs of `text`, without white space around them. Hard wrapping is undone.

    A text is wrapped when one column forces more than half of the line breaks in its blocks, those after the end of a sentence never
    counted as forced, and at least a third of the lines after a break begin as the middle of a sentence can; verses, records and lists
    do not. Then a line goes on where it is full, or where the next begins in lower case although sentences begin in upper case.

    Where the width shows nothing, as in a text of few lines, but most lines go on in lower case, a block is joined that begins in upper
    case, holds the end of a sentence, and goes on in lower case or after a full line. Otherwise every line is a paragraph, as in corpora
    with a paragraph or a sentence on each line.
    """
    blocks = split_blocks(text)
    width, wrapped = wrapping(blocks)
    if not wrapped:
        short_prose = _mostly_lower(blocks)
        return [line for block in blocks for line in ([_joined(block)] if short_prose and _is_prose(block, width) else block)]
    cased = sum(block[0][0].isupper() for block in blocks) > len(blocks) / 2
    out: list[str] = []
    for block in blocks:
        lines = [block[0]]
        for before, after in pairwise(block):
            if not (_goes_on(before, after, width) or (cased and after[0].islower())):
                out.append(_joined(lines))
                lines = []
            lines.append(after)
        out.append(_joined(lines))
    return out


def paragraphs_of_version_1(text: str) -> list[str]:
    """The paragraphs as the first version of these rules made them: all lines are joined when most go on in lower case.

    Datasets of that time keep their keys where both versions agree.
    """
    blocks = split_blocks(text)
    return [" ".join(block) for block in blocks] if _mostly_lower(blocks) else [line for block in blocks for line in block]


def split_blocks(text: str) -> list[list[str]]:
    """The lines of each block of `text`, stripped; empty lines divide blocks."""
    parts = re.split(r"\n\s*\n", text.replace("\r\n", "\n"))
    blocks = ([line.strip() for line in part.splitlines() if line.strip()] for part in parts)
    return [block for block in blocks if block]


def wrapping(blocks: list[list[str]]) -> tuple[int, bool]:
    """The column that forces most line breaks of a text, and whether that shows that the text is wrapped there."""
    breaks = [pair for block in blocks for pair in pairwise(block)]
    within = [pair for pair in breaks if SENTENCE_END.search(pair[0]) is None]
    width, forced = _most_forcing(within)
    goes_on = sum(after[0].isalpha() and not after[0].isupper() for _, after in breaks)
    if forced < max(LEAST_BREAKS, SHARE * len(within)) or 3 * goes_on < len(breaks):
        return width, False
    # A last line of a block that is wider was not wrapped either.
    wider = sum(columns(block[-1]) > width + RAGGED for block in blocks)
    return width, forced > (len(breaks) + wider) / 2


def _most_forcing(breaks: list[Break]) -> tuple[int, int]:
    """The column that forces most of `breaks`, and how many it does; (0, 0) without any."""
    changes: Counter[int] = Counter()  # column -> breaks that it forces, less those that the column before it forces
    for before, after in breaks:
        narrowest, widest = forcing_columns(before, after)
        if narrowest <= WIDEST:
            changes[narrowest - RAGGED] += 1
            changes[min(widest, WIDEST) + RAGGED + 1] -= 1
    column, most, forced = 0, 0, 0
    for each in sorted(changes):
        forced += changes[each]
        if forced > most:
            column, most = each, forced
    return column, most


def forcing_columns(before: str, after: str) -> tuple[int, int]:
    """The narrowest and the widest column that forces the break: `before` fits, and the first word of `after` does not."""
    narrowest = columns(before)
    if _is_spaceless(after[0]):
        return narrowest, narrowest + (_WIDE_UNIT if _is_wide(after[0]) else _SOUTH_EAST_ASIAN_UNIT) - 1
    return narrowest, narrowest + columns(after.split(maxsplit=1)[0])


def columns(line: str) -> int:
    """The width of a line as terminals and editors count it: wide characters take two columns, combining marks none."""
    return len(line) if line.isascii() else sum(map(_columns_of, line))


@lru_cache(4096)
def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if _is_wide(character) else 1


def _is_wide(character: str) -> bool:
    """Whether it takes two columns: Chinese, Japanese and Korean, their punctuation, emoji."""
    return unicodedata.east_asian_width(character) in "WF"


def _is_spaceless(character: str) -> bool:
    """Whether it is written without a space before or after it. Korean has spaces."""
    wide = _is_wide(character) and not unicodedata.name(character, "").startswith("HANGUL")
    return wide or is_south_east_asian(character)


def _is_full(before: str, after: str, width: int) -> bool:
    """Whether a line leaves little of the width, given the word that follows it."""
    return forcing_columns(before, after)[1] >= FULL * width


def _goes_on(before: str, after: str, width: int) -> bool:
    """Whether a line of a wrapped text is full; where it ends a sentence, only a break that the width forced shows that it goes on."""
    narrowest, widest = forcing_columns(before, after)
    forced = narrowest - RAGGED <= width <= widest + RAGGED
    return forced or (_is_full(before, after, width) and SENTENCE_END.search(before) is None)


def _mostly_lower(blocks: list[list[str]]) -> bool:
    """Whether most lines after a break begin in lower case."""
    lower = [line[0].islower() for block in blocks for line in block[1:]]
    return sum(lower) > len(lower) / 2


def _is_prose(block: list[str], width: int) -> bool:
    """Whether a block begins as a sentence does, one ends in it, and every line goes on with the one before."""
    if not block[0][0].isupper() or not any(map(_SENTENCE_ENDS.search, block)):
        return False
    return all(after[0].islower() or _is_full(before, after, width) for before, after in pairwise(block))


def _joined(lines: list[str]) -> str:
    """The lines as one: with a space, but without one between characters of scripts that write none."""
    text = lines[0]
    for line in lines[1:]:
        spaceless = _is_spaceless(text[-1]) and _is_spaceless(line[0])
        text += line if spaceless else f" {line}"
    return text
