"""Folders that `save_to_disk` of Hugging Face's `datasets` wrote: a dataset, or one for each split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lvm.data.sources.items import Item
from lvm.data.sources.rows import FIELDS, ROW, Reading, RowReader
from lvm.errors import InputError, require_extra

BATCH_ROWS = 256


def is_saved(spec: str) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    try:
        there = {path.name for path in Path(spec).glob("*.json")}
    except (OSError, ValueError):
        return False
    return "dataset_dict.json" in there or {"dataset_info.json", "state.json"} <= there


def read_saved(spec: str, reading: Reading) -> Iterator[Item]:
    """The rows of a saved dataset, of all its splits. Columns that nothing reads stay on disk."""
    require_extra("datasets", f"source {spec!r}, a folder that save_to_disk wrote,")
    from datasets import DatasetDict, load_from_disk

    name = Path(spec).resolve().name
    try:
        loaded = load_from_disk(spec, keep_in_memory=False)
        splits = dict(loaded) if isinstance(loaded, DatasetDict) else {"": loaded}
        for split, rows in splits.items():
            yield from _rows(rows, f"{spec}/{split}".rstrip("/"), split or name, name, reading)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"source {spec!r} is not a readable folder of save_to_disk: {error}") from error


def _rows(dataset: Any, shown: str, split: str, source: str, reading: Reading) -> Iterator[Item]:
    names = dataset.column_names
    rows = RowReader(shown, split, "row", source, reading, names)
    if not {reading.column("doc_id"), reading.column("text")} - {ROW} <= set(names):
        yield from rows(1, dict.fromkeys(names))  # refused, naming the columns that are there
    wanted = [name for name in names if name in {reading.column(field) for field in FIELDS}]
    number = 0
    for batch in dataset.select_columns(wanted).with_format(None).iter(BATCH_ROWS):
        for values in zip(*(batch[name] for name in wanted), strict=True):
            number += 1
            yield from rows(number, dict(zip(wanted, values, strict=True)))
