"""The two refusals of the pipeline with their exit codes, and the sentences for what is missing or full."""

from importlib.util import find_spec


class InputError(ValueError):
    """The input cannot be used. The message names the field or file and the remedy. Exit code 2."""

    exit_code = 2


class GateRefused(RuntimeError):
    """A gate stopped the pipeline: data or model would make every later number false. Exit code 3."""

    exit_code = 3


class TrainingDiverged(RuntimeError):
    """The loss, a gradient or a weight stopped being a finite number; the message names the step and the remedy. Exit code 1."""

    exit_code = 1


OUT_OF_MEMORY = "the accelerator is out of memory: free some of it, or give another device"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator had no memory left. Compared by name, since commands without torch do not import it; MPS has no such class."""
    return type(error).__name__ == "OutOfMemoryError" or "MPS backend out of memory" in str(error)


EXTRAS = {
    "datasets": ("datasets",),
    "pipeline": ("mlflow", "prefect", "psutil"),
    "serve": (
        "fastapi", "fastapi_offline", "httptools", "httpx", "orjson", "prometheus_client", "pythonjsonlogger", "uvicorn", "uvloop",
    ),
}  # fmt: skip
"""The extras of pyproject.toml whose packages are imported here, by the names under which they are imported."""


def require_extra(extra: str, what: str) -> None:
    """Raise `InputError` with the command that installs `extra` when `what` is asked for and one of its packages is missing."""
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'lvm-pipeline[{extra}]'")
