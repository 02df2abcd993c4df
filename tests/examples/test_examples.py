"""The scripts in examples/ run as their README says, and end with what they promise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lvm.decoding.inverter.folder import read_decoder_config
from lvm.models.checkpoint import read_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(script: str, out: Path) -> str:
    """What the script prints; it finds the checkout as an installed one, and has a Prefect of its own."""
    home = out.parent / f"{out.name}-home"
    (home / "tmp").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home), "TMPDIR": str(home / "tmp"), "COLUMNS": "200"}
    # Few documents may show no skill over the baselines, and then there is no champion; see `tests.support.passing_baselines`.
    environment |= {"LVM_PLUGINS": "tests.support.passing_baselines"}
    environment |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}
    words = [sys.executable, str(ROOT / "examples" / script), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=home, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_own_documents_become_a_served_champion_that_answers(tmp_path):
    shown = run("own_documents.py", tmp_path / "out")
    assert read_config(tmp_path / "out" / "models" / "champion").arch == "lstm"
    answers = shown[shown.index("the model expects") :]
    assert len(re.findall(r"^0\.\d{3}  \S+\.txt: \S", answers, re.MULTILINE)) == 3


def test_another_encoder_gets_a_decoder_of_its_own(tmp_path):
    shown = run("other_encoder.py", tmp_path / "out")
    recipe = read_decoder_config(tmp_path / "out" / "decoder").recipe
    assert (recipe.normalize, recipe.dim) == (False, 384) and recipe.name.endswith("/out/encoder")
    assert len(re.findall(r"^  -> .+ \(round-trip cosine -?[01]\.\d{3}\)$", shown, re.MULTILINE)) == 2


def test_an_architecture_from_outside_the_package_is_trained_and_validated(tmp_path):
    shown = run("new_architecture.py", tmp_path / "out")
    # Not by `read_config`: this process does not know the architecture.
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text(encoding="utf-8"))["arch"] == "convolution"
    assert "convolution" in shown and "skill" in shown
