"""`lvm extract`: documents to a dataset."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lvm.cli.common import ConfigOption, DeviceOption, JsonOption, PresetOption, SetOption, output, progress_bar, registered
from lvm.config import read_settings
from lvm.data.encoders import encoder_names
from lvm.data.sources import source_kinds
from lvm.reports.next_command import next_command


def extract(
    source: Annotated[list[str], typer.Option(help=f"{registered(source_kinds)}; repeatable.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the dataset.")],
    encoder: Annotated[str, typer.Option(help=f"{registered(encoder_names)}.")] = "minilm",
    max_docs: Annotated[int | None, typer.Option(min=1, help="Documents in a fixed sample; all of them by default.")] = None,
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
    loaded = load_encoder(encoder, str(resolve_device(device)), dtype)
    with progress_bar("chunks") as bar:
        task = bar.add_task("encoding", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        done = run(source, out, loaded, settings.chunker, settings.splits, max_docs, show)
    m = done.manifest
    value = {"path": str(out), "digest": m.digest, "reused": done.reused, "encoded_chunks": done.encoded_chunks}
    value |= {"documents": m.documents, "chunks": m.chunks, "skipped": m.skipped, "ignored_fields": m.ignored_fields}
    output(value, as_json, *_report(done), next_command("diagnose", out))


def _report(done: Any) -> list[Any]:
    """What people read of an `Extracted`: counts a split, documents that were skipped, fields that were ignored."""
    from lvm.reports.tables.table import Table

    m = done.manifest
    title = f"Dataset {m.digest[:12]} at {done.path}" + (" (reused, nothing to do)" if done.reused else "")
    rows = [[split, str(m.documents[split]), str(m.chunks[split])] for split in m.documents]
    parts: list[Any] = [Table(title, ["split", "documents", "chunks"], rows).rich()]
    if m.skipped:
        skipped = [[item["doc_id"], item["reason"]] for item in m.skipped[:20]]
        parts.append(Table(f"Skipped: {len(m.skipped)} documents", ["doc_id", "reason"], skipped).rich())
    if m.ignored_fields:
        parts.append(f"Fields of the input that nothing reads: {', '.join(m.ignored_fields)}")
    return parts
