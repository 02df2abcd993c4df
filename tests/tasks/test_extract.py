"""The extraction of a flow reads each source once, cuts each document once, and finds an earlier dataset or its vectors again."""

import json
import logging
from pathlib import Path

from prefect.logging import disable_run_logger

import tasks.extract
from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.dataset import open_dataset
from lvm.data.encoders import Encoder
from tasks.extract import extract_documents
from tasks.workspace import Workspace
from tests.support.corpora import Counted, QuickEncoder, count_hashes, write_lines


def test_flow_reads_and_cuts_once_and_a_second_one_finds_the_dataset(small_corpus, encoder: Encoder, tmp_path: Path, monkeypatch) -> None:
    rows = [json.loads(line) for line in small_corpus.read_text(encoding="utf-8").splitlines()[:3]]
    source = write_lines(tmp_path / "few.jsonl", [row | {"text": "\n".join(row["text"].splitlines()[:3])} for row in rows])
    workspace = Workspace(root=tmp_path / "root")
    monkeypatch.setattr(tasks.extract, "load_encoder", lambda name, device: encoder)
    counted, hashed = Counted(monkeypatch), count_hashes(monkeypatch)

    def extracted() -> Path:
        with disable_run_logger():
            return extract_documents.fn(workspace, [source], "minilm", None, ChunkerConfig(), SplitConfig(), "cpu")

    path = extracted()
    made = open_dataset(path)
    assert path == workspace.datasets / made.manifest.key[:12]
    assert counted.reads == {source: 1} and sorted(counted.cuts.values()) == [1, 1, 1]
    assert hashed == [path / shard.file for shard in made.manifest.shards], "opening hashes nothing that was hashed when it was written"
    assert extracted() == path and counted.reads == {source: 2} and sum(counted.cuts.values()) == 3 and len(hashed) == 1
    assert {file.name for file in workspace.datasets.iterdir()} == {path.name}


def test_flow_reuses_vectors_of_earlier_datasets_by_itself_and_says_which_one_is_damaged(encoder, tmp_path, monkeypatch, caplog) -> None:
    workspace, logger = Workspace(root=tmp_path / "root"), logging.getLogger("flow")
    monkeypatch.setattr(tasks.extract, "get_run_logger", lambda: logger)
    caplog.set_level(logging.INFO, "flow")

    def extracted(count: int) -> tuple[int, Path]:
        rows = [{"doc_id": str(i), "text": f"Report {i} is short.\n\nIt ends in line {i}."} for i in range(count)]
        watched = QuickEncoder(encoder)
        monkeypatch.setattr(tasks.extract, "load_encoder", lambda name, device: watched)
        source = write_lines(tmp_path / "reports.jsonl", rows)
        path = extract_documents.fn(workspace, [source], "minilm", None, ChunkerConfig(), SplitConfig(), "cpu")
        return watched.texts, path

    assert extracted(20)[0] == 40
    encoded, second = extracted(21)
    assert encoded == 2 and "encoded 2 chunks, reused 40 of " in caplog.text
    assert "damaged" not in caplog.text
    (second / "chunks-00000.parquet").write_bytes(b"PAR1")
    assert extracted(22)[0] == 4, "the first dataset still holds twenty reports"
    assert f"dataset {second} cannot be reused: chunks-00000.parquet is missing or damaged" in caplog.text
