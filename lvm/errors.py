"""The two ways in which the pipeline says no, and the exit code of each."""


class InputError(ValueError):
    """The input cannot be used. The message names the field or file and the remedy. Exit code 2."""

    exit_code = 2


class GateRefused(RuntimeError):
    """A gate refuses to go on: the data or the model would make every later number false. Exit code 3."""

    exit_code = 3
