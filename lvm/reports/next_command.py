"""The line that ends a report."""

import shlex


def next_command(*words: object) -> str:
    """What to type next: an `lvm` command, quoted for a shell."""
    return "Next: " + shlex.join(["lvm", *map(str, words)])
