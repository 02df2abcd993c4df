"""What a flow refuses is one sentence on standard error, with its exit code."""

import errno

import pytest
import torch

from flows.command import exit_on_refusal
from lvm.errors import GateRefused, InputError


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("field 'x' is 3: give 4"), 2, "retrain-all: field 'x' is 3: give 4"),
        (GateRefused("chunk_order: shuffled"), 3, "retrain-all: chunk_order: shuffled"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "retrain-all: no space left on the disk: free some, then run the same"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), 2, "retrain-all: no space left on the disk"),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, "retrain-all: the accelerator is out of memory: free some of it, or give"),
    ],
)
def test_refusals_end_the_process_with_their_code_and_one_line(error, code, says, capsys):
    with pytest.raises(SystemExit) as ended, exit_on_refusal("retrain-all"):
        raise error
    words = capsys.readouterr().err
    assert ended.value.code == code and words.startswith(says) and words.count("\n") == 1


def test_anything_else_is_shown_whole():
    with pytest.raises(ZeroDivisionError), exit_on_refusal("retrain-all"):
        raise ZeroDivisionError
