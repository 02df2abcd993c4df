"""Run the `lvm` command in this process, read what it printed, and make the damaged datasets that it is given."""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lvm.atomic_io import sha256_file
from lvm.cli.main import main
from lvm.data.dataset import Dataset
from lvm.data.manifest import Manifest, content_key, read_manifest, write_manifest

ABSENT_DEVICE = "cuda:99" if torch.cuda.is_available() else "cuda"
"""A device that is not on this machine."""

SMALL = ("--epochs", "1", "--set", "model.width=64", "--set", "context_length=2")
"""A training of one short epoch."""


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object on standard output, which must be all there is."""
        assert len(self.out.splitlines()) == 1, f"one line, not: {self.out}"
        return json.loads(self.out)


def lvm(*arguments: object) -> Finished:
    """Run the command in this process, as its script does."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["lvm", *map(str, arguments)])
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    return Finished(code, out.getvalue(), err.getvalue())


def refusal(finished: Finished) -> str:
    """The sentence of a refused command: the one line on standard error that is the command's own, and its last."""
    assert finished.code == 2, finished.err
    assert finished.out == ""
    assert "Traceback" not in finished.err
    own = [line for line in finished.err.splitlines() if line.startswith("lvm: ")]
    assert len(own) == 1, finished.err
    assert finished.err.strip().endswith(own[0])
    return own[0].removeprefix("lvm: ")


def tree(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its digest."""
    return {f.relative_to(folder).as_posix(): sha256_file(f) for f in sorted(folder.rglob("*")) if f.is_file()}


def copy_of(dataset: Dataset, folder: Path) -> Path:
    """The dataset's files, without what was derived from them."""
    return Path(shutil.copytree(dataset.path, folder, ignore=shutil.ignore_patterns("derived")))


def with_recipe(manifest: Manifest, folder: Path, **changes: Any) -> Path:
    """A folder with a manifest that says that the vectors are of another encoder, and no shards."""
    recipe = manifest.recipe.model_copy(update=changes)
    key = content_key(manifest.schema_version, manifest.source_digest, manifest.chunker, manifest.splits, recipe)
    write_manifest(folder, manifest.model_copy(update={"key": key, "recipe": recipe}))
    return folder


def with_vectors(dataset: Dataset, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy with other vectors in place of the dataset's, rightly signed: only a gate can tell."""
    copy_of(dataset, folder)
    manifest = read_manifest(folder)
    vectors, start, shards = change(np.array(dataset.vectors)), 0, []
    for shard in manifest.shards:
        file = folder / shard.file
        table = pq.read_table(file)
        own = pa.FixedSizeListArray.from_arrays(pa.array(vectors[start : start + shard.rows].ravel()), dataset.dim)
        place = table.schema.get_field_index("embedding")
        pq.write_table(table.set_column(place, table.schema.field(place), own).cast(table.schema), file)
        shards.append(shard.model_copy(update={"sha256": sha256_file(file)}))
        start += shard.rows
    write_manifest(folder, manifest.model_copy(update={"shards": shards}))
    return folder
