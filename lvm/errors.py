"""The two ways in which the pipeline says no, the exit code of each, and an accelerator that is full."""


class InputError(ValueError):
    """The input cannot be used. The message names the field or file and the remedy. Exit code 2."""

    exit_code = 2


class GateRefused(RuntimeError):
    """A gate refuses to go on: the data or the model would make every later number false. Exit code 3."""

    exit_code = 3


class TrainingDiverged(RuntimeError):
    """The loss, a gradient or a weight stopped being a finite number; the message names the step and the remedy. Exit code 1."""

    exit_code = 1


OUT_OF_MEMORY = "the accelerator is out of memory: free some of it, or give another device"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator had no memory left. By name: commands that need no torch do not import it; MPS has no kind of its own."""
    return type(error).__name__ == "OutOfMemoryError" or "MPS backend out of memory" in str(error)
