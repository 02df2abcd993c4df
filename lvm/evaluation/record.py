"""The evaluation of a model, kept in its folder, so that a server can show it."""

import json
from pathlib import Path
from typing import Any

from lvm.atomic_io import write_json
from lvm.errors import InputError

FILE = "verdict.json"


def write_record(model: Path, dataset_digest: str, gates: list[dict[str, Any]], val: dict[str, Any], test: dict[str, Any]) -> None:
    """Write the gate results and the validation and test `Evaluation.summary()` into the model's folder; replaces an earlier record."""
    write_json(model / FILE, {"dataset_digest": dataset_digest, "gates": gates, "val": val, "test": test})


def read_record(model: Path) -> dict[str, Any] | None:
    """The record of the model in this folder; None if it was never evaluated. Raises `InputError` when the file is damaged."""
    file = model / FILE
    if not file.exists():
        return None
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}): promote the model again") from error
