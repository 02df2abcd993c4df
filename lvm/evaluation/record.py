"""What was measured on a model before it could become champion: kept beside it, so that whoever serves it can say so."""

import json
from pathlib import Path
from typing import Any

from lvm.atomic_io import write_json
from lvm.errors import InputError

FILE = "verdict.json"


def write_record(model: Path, dataset_digest: str, gates: list[dict[str, Any]], val: dict[str, Any], test: dict[str, Any]) -> None:
    """Keep the gates and the two `Evaluation.summary()`s of the model in this folder. Replaces an earlier verdict."""
    write_json(model / FILE, {"dataset_digest": dataset_digest, "gates": gates, "val": val, "test": test})


def read_record(model: Path) -> dict[str, Any] | None:
    """What `write_record` kept, None for a model that nobody has judged; `InputError` when it cannot be read."""
    file = model / FILE
    if not file.exists():
        return None
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}): promote the model again") from error
