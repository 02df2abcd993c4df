"""Running one command in several processes on this host, with torchrun's agent in this process.

Apart from lvm/training/distributed.py, which every process imports: torchrun takes a second to import, and only the process that starts
the others needs it.
"""

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
    """Run `lvm ARGUMENTS` in `processes` processes, which find each other through torchrun's environment variables.

    When one fails, the others are ended. Returns 0, or what `exit_code` makes of their codes.
    """
    logging.disable(logging.CRITICAL)  # the processes print their own errors
    words = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}", "-m", "lvm", *arguments]
    try:
        run(parse_args(words))
    except ChildFailedError as error:
        return exit_code([failure.exitcode for failure in error.failures.values()])
    except SignalException as received:
        return -int(received.sigval)
    return 0


def exit_code(codes: Collection[int]) -> int:
    """The one of several failed processes' codes that names the cause: an exit code, or the negative number of a signal.

    A process that was killed is the cause of the lost connections that the others report. The agent's own SIGTERM to the others is never
    the cause.
    """
    causes = [code for code in codes if code != -signal.SIGTERM] or list(codes)
    return min(causes) if min(causes) < 0 else max(causes)


def end_as(code: int) -> NoReturn:
    """End this process with an exit code, or by a signal when the code is negative."""
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to restore
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
