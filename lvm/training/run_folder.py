"""The folder of a training run: a new run, one to resume, or one that is finished.

A run keeps its state in `training/` and writes `config.json` last, so a folder with a `config.json`
holds a finished run. Predictors and decoders share this layout.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lvm.errors import InputError
from lvm.training.distributed import Ranks

C = TypeVar("C")

STATE_FOLDER = "training"
"""Name of the subfolder with the state that a resumed run needs."""


def prepare_run_folder(
    out: Path,
    files: Sequence[str],
    read: Callable[[Path], C],
    same_run: Callable[[C], bool],
    resume: bool,
    fresh: bool,
    ranks: Ranks,
) -> C | None:
    """Prepare `out` for a run; return the configuration of a finished run that `resume` keeps, otherwise None.

    `resume` continues the run in `out`, or starts one if there is none. `fresh` deletes the run that is there:
    `config.json`, `files` and `training/`, and nothing else. `read` reads the `config.json` of a finished
    run, and `same_run` says whether it has the present configuration and data.

    Raises `InputError` when both `resume` and `fresh` are given, when `out` holds a run and neither is, or
    when the finished run is another one.
    """
    if resume and fresh:
        raise InputError("--resume and --fresh exclude each other")
    folder, finished = out / STATE_FOLDER, out / "config.json"
    if fresh and ranks.rank == 0:
        for name in (finished.name, *files):
            (out / name).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
    ranks.wait()
    if not resume and (folder.exists() or finished.exists()):
        raise InputError(f"{out} holds a run already: give --resume to go on, --fresh to start over, or another --out")
    if resume and finished.exists():
        config = read(out)
        if not same_run(config):
            raise InputError(f"{out} holds a run with another configuration or dataset: give --fresh or another --out")
        return config
    # Without this wait, a slow process could take files that rank 0 writes now for those of an earlier run.
    ranks.wait()
    return None
