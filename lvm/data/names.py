"""Many names, for places that hold few: a table, a message, a database."""

from collections.abc import Sequence

LONGEST = 200
"""Characters of one name that are shown."""


def first_names(names: Sequence[str], characters: int = 300) -> list[str]:
    """The first of `names`, one at least, that have about `characters` together. Of what is left out, the last entry is the number.

    Three names of nine hundred become `[first, second, third, 'and 897 more']`. A name over 200 characters ends in '…'.
    """
    shown: list[str] = []
    left = characters
    for name in names:
        short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        left -= len(short) + 2
        if shown and left < 0:
            return [*shown, f"and {len(names) - len(shown):,} more"]
        shown.append(short)
    return shown
