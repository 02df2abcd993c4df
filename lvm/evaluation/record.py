"""The evaluation of a model, kept in its folder, so that a server can show it."""

from pathlib import Path
from typing import Any

from lvm.atomic_io import read_json, sha256_once, verified_fields, write_json_with_digest

FILE = "evaluation.json"

REMEDY = "promote the model again"


def write_record(model: Path, dataset_digest: str, gates: list[dict[str, Any]], val: dict[str, Any], test: dict[str, Any]) -> None:
    """Write the gate results and the validation and test `Evaluation.summary()` into the model's folder; replaces an earlier record."""
    record = {"dataset_digest": dataset_digest, "weights_sha256": _weights(model), "gates": gates, "val": val, "test": test}
    write_json_with_digest(model / FILE, record)


def read_record(model: Path) -> dict[str, Any] | None:
    """The record of the model in this folder; None if these weights were never evaluated. Raises `InputError` when the file is altered."""
    file = model / FILE
    if not file.exists():
        return None
    values = read_json(file, REMEDY)
    record = verified_fields(file, values if isinstance(values, dict) else {}, REMEDY)
    return record if record["weights_sha256"] == _weights(model) else None


def _weights(model: Path) -> str:
    """SHA-256 of the model's weights: a record does not pass to another model that is trained into the same folder."""
    return sha256_once(model / "model.safetensors")
