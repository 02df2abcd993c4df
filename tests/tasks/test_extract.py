"""The extraction of a flow reads each source once, cuts each document once, and finds an earlier dataset again."""

import json
from pathlib import Path

from prefect.logging import disable_run_logger

import tasks.extract
from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.dataset import open_dataset
from lvm.data.encoders import Encoder
from tasks.extract import extract_documents
from tasks.workspace import Workspace
from tests.support.corpora import Counted, count_hashes, write_lines


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
