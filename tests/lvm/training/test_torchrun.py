"""A command in several processes ends as one process would: with the code, or by the signal, that was the cause."""

import multiprocessing
import signal

import pytest

from lvm.training.torchrun import end_as, exit_code

KILL, TERM = -signal.SIGKILL, -signal.SIGTERM


@pytest.mark.parametrize(
    ("codes", "why"),
    [
        ([2, 2], 2),
        ([2, TERM], 2),
        ([TERM, 1], 1),
        ([1, 2], 2),  # a process that lost its sibling fails; the sibling refused its input
        ([1, KILL], KILL),
        ([KILL, TERM, 1], KILL),
        ([TERM, TERM], TERM),
    ],
)
def test_the_exit_code_is_that_of_the_cause_and_not_of_what_followed(codes: list[int], why: int) -> None:
    assert exit_code(codes) == why


@pytest.mark.parametrize("code", [0, 2, KILL, TERM])
def test_a_process_can_end_as_those_it_started(code: int) -> None:
    ending = multiprocessing.get_context("fork").Process(target=end_as, args=(int(code),))
    ending.start()
    ending.join(60)
    assert ending.exitcode == code


def test_end_as_a_code_is_an_ordinary_exit() -> None:
    with pytest.raises(SystemExit) as caught:
        end_as(3)
    assert caught.value.code == 3
