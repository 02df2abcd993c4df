"""vec2text is an extra: imported only when asked for, named when missing, and without side effects on the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests

ROOT = Path(__file__).parents[4]


LIBRARY = """
import logging, os, sys
import lvm.cli.main, lvm.decoding.vec2text.decoder
from lvm.decoding.load import load_decoder
from lvm.errors import InputError
assert "vec2text" not in sys.modules, "imported without being asked for"
import transformers
names = ("TOKENIZERS_PARALLELISM", "WANDB__SERVICE_WAIT", "_WANDB_STARTUP_DEBUG")
state = lambda: ([os.environ.get(name) for name in names], transformers.logging.get_verbosity(), logging.getLogger("torch._dynamo").level)
before = state()
for missing in ("vec2text", "evaluate"):
    sys.modules[missing] = None
    try:
        load_decoder("vec2text:gtr-base")
    except InputError as error:
        print(error)
    del sys.modules[missing]
    for name in [name for name in sys.modules if name.split(".")[0] == "vec2text"]:
        del sys.modules[name]
from lvm.decoding.vec2text.repairs import import_vec2text
print(import_vec2text().__name__, state() == before)
"""


@pytest.mark.slow
def test_library_is_imported_only_when_asked_for_named_when_missing_and_leaves_the_process_as_it_was():
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM" and "WANDB" not in name}
    run = subprocess.run([sys.executable, "-c", LIBRARY], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    missing, broken, imported = run.stdout.splitlines()
    for line, module in ((missing, "vec2text"), (broken, "evaluate")):
        assert line.startswith('a vec2text decoder needs the optional library: pip install "lvm-pipeline[vec2text]"') and module in line
    assert imported == "vec2text True"


def test_our_tests_come_before_those_that_the_library_installs():
    assert Path(tests.__file__) == ROOT / "tests" / "__init__.py"
