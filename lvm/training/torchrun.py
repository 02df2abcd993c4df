"""Several processes of one command on this host, by torchrun's agent in this very process."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Collection, Sequence
from typing import NoReturn

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run


def run_together(processes: int, arguments: Sequence[str]) -> int:
    """Run `lvm ARGUMENTS` in so many processes that find each other by torchrun's environment.

    When one ends badly the others are ended. Returns 0, or how they ended: see `how_they_ended`.
    """
    logging.disable(logging.CRITICAL)  # the processes say themselves what was wrong
    words = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}", "-m", "lvm", *arguments]
    try:
        run(parse_args(words))
    except ChildFailedError as error:
        return how_they_ended([failure.exitcode for failure in error.failures.values()])
    except SignalException as told:
        return -int(told.sigval)
    return 0


def how_they_ended(codes: Collection[int]) -> int:
    """The exit code, or the negative number of a signal, that tells why processes ended, of the codes of those that did badly.

    A kill explains what its siblings say of a lost connection; the agent's own SIGTERM to the rest explains nothing.
    """
    ended = [code for code in codes if code != -signal.SIGTERM] or list(codes)
    return min(ended) if min(ended) < 0 else max(ended)


def end_as(code: int) -> NoReturn:
    """End this process with an exit code, or by the signal of a negative one, as its processes ended."""
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to take back
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
