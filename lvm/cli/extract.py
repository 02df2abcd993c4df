"""`lvm extract`: documents to a dataset."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lvm.cli.common import ColumnOption, ConfigOption, DeviceOption, JsonOption, PresetOption, SetOption, output, progress_bar, registered
from lvm.config import read_settings
from lvm.data.columns import parse_columns
from lvm.data.encoders import encoder_names
from lvm.data.sources import FIELDS, Reading, by_reason, source_kinds
from lvm.reports.next_command import next_command

SHOWN = 20
"""What was left out and is listed one by one; the manifest lists all."""


def extract(
    source: Annotated[list[str], typer.Option(help=f"{registered(source_kinds)}; repeatable.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the dataset.")],
    encoder: Annotated[str, typer.Option(help=f"{registered(encoder_names)}.")] = "minilm",
    column: ColumnOption = None,
    chunked: Annotated[bool, typer.Option("--chunked", help="The text is cut already: a row a chunk, or a list a document.")] = False,
    max_docs: Annotated[int | None, typer.Option(min=1, help="Documents in a fixed sample; all of them by default.")] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on although more than half of the input is left out.")] = False,
    reuse: Annotated[
        list[Path] | None, typer.Option(help="Dataset of the same encoder: vectors of equal texts are taken from it; repeatable.")
    ] = None,
    preset: PresetOption = None,
    config_file: ConfigOption = None,
    setting: SetOption = None,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn documents into a dataset of embedded chunks. The settings `chunker` and `splits` say how."""
    from lvm.data.encoders import load_encoder
    from lvm.data.extract import extract as run
    from lvm.devices import resolve_device

    settings = read_settings(preset, config_file, setting or [], reads=("chunker", "splits"))
    reading = Reading(parse_columns(column or [], FIELDS), chunked, keep_going)
    loaded = load_encoder(encoder, str(resolve_device(device)), dtype)
    with progress_bar("chunks") as bar:
        task = bar.add_task("encoding", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        done = run(source, out, loaded, settings.chunker, settings.splits, max_docs, show, reading, reuse or [])
    m = done.manifest
    value = {"path": str(out), "digest": m.digest, "reused": done.reused, "encoded_chunks": done.encoded_chunks}
    value |= {"reused_chunks": done.reused_chunks, "reused_from": list(m.reused), "changed_splits": done.moved}
    value |= {"documents": m.documents, "chunks": m.chunks, "skipped": m.skipped, "ignored_fields": m.ignored_fields}
    value |= {"skipped_by_reason": by_reason(item["reason"] for item in m.skipped), "encodings": m.encodings}
    output(value, as_json, *dataset_report(done), next_command("diagnose", out))


def dataset_report(done: Any) -> list[Any]:
    """What people read of an `Extracted` or an `Imported`: counts a split, what was left out, fields that were ignored."""
    from lvm.reports.tables.table import Table

    m = done.manifest
    title = f"Dataset {m.digest[:12]} at {done.path}" + (" (reused, nothing to do)" if done.reused else "")
    rows = [[split, str(m.documents[split]), str(m.chunks[split])] for split in m.documents]
    parts: list[Any] = [Table(title, ["split", "documents", "chunks"], rows).rich()]
    parts += [f"{line[0].upper()}{line[1:]}." for line in done.remarks]
    if m.skipped:
        listed = m.skipped[:SHOWN]
        more = f", the first {SHOWN} of" if len(m.skipped) > SHOWN else ":"
        skipped = [[item["doc_id"], item["reason"]] for item in listed]
        parts.append(Table(f"Left out{more} {len(m.skipped):,}", ["document, file or row", "reason"], skipped).rich())
        sums = by_reason(item["reason"] for item in m.skipped)
        parts.append("Left out by reason: " + ", ".join(f"{reason} {count:,}" for reason, count in sums.items()))
    if m.encodings:
        read = ", ".join(f"{encoding} {count:,}" for encoding, count in m.encodings.items())
        parts.append(f"Files that are not UTF-8, by the encoding that was recognised: {read}")
    if m.ignored_fields:
        parts.append(f"Fields of the input that nothing reads: {', '.join(m.ignored_fields)}")
    return parts
