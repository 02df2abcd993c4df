"""Names of encoders that carry options: `kind:argument?option=value&option=value`, written as in a URL."""

from collections.abc import Collection
from urllib.parse import parse_qsl

from lvm.errors import InputError


def split_name(name: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """The argument of an encoder's name, and its options: `kind:some/folder?prompt=query:%20` gives some/folder and `query: `.

    In a value, `%20` and `+` stand for a space and `%2B` for a plus. Raises `InputError` when an option is none of `known`, stands
    twice, or has no value.
    """
    argument, mark, query = name.partition(":")[2].partition("?")
    try:
        # strict_parsing takes an empty query, which the mark promised to be none.
        pairs = parse_qsl(query or "?", keep_blank_values=True, strict_parsing=True, errors="strict") if mark else []
    except ValueError as error:
        raise InputError(f"encoder {name!r}: {query!r} is not option=value, joined by '&' ({error})") from error
    options = dict(pairs)
    if len(options) < len(pairs) or not options.keys() <= set(known):
        raise InputError(f"encoder {name!r}: after the '?' each of {', '.join(known)} may stand once, as option=value")
    if not argument:
        raise InputError(f"encoder {name!r}: nothing stands before the '?'")
    return argument, options
