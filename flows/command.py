"""A flow as a command: its errors as one sentence and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lvm.durable import is_full
from lvm.errors import GateRefused, InputError


@contextmanager
def one_sentence(name: str) -> Iterator[None]:
    """End the process with the exit code and the sentence of what the flow `name` refuses, or of a full disk."""
    try:
        yield
    except (InputError, GateRefused) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if not is_full(error):
            raise
        print(f"{name}: no space left on the disk: free some and run the same command again ({error})", file=sys.stderr)
        sys.exit(InputError.exit_code)
