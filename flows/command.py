"""A flow as a command: its errors as one sentence and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lvm.atomic_io import is_full
from lvm.errors import OUT_OF_MEMORY, GateRefused, InputError, ran_out_of_memory


@contextmanager
def one_sentence(name: str) -> Iterator[None]:
    """End the process with the exit code and the sentence of what the flow `name` refuses, or of a full disk or accelerator."""
    try:
        yield
    except (InputError, GateRefused) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if is_full(error):
            remedy = "no space left on the disk: free some and run the same command again"
        elif ran_out_of_memory(error):
            remedy = OUT_OF_MEMORY
        else:
            raise
        print(f"{name}: {remedy} ({error})", file=sys.stderr)
        sys.exit(InputError.exit_code)
