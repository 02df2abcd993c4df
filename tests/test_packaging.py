"""What an installation holds: the wheel `lvm` alone, which works without the optional packages and names the extra that is missing."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

from lvm.errors import EXTRAS

CHECKOUT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
OPTIONAL = sorted({name for names in EXTRAS.values() for name in names})


def without_extras(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process in which none of the optional packages is installed."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL}))\n"
    return subprocess.run([sys.executable, "-c", hidden + code, *arguments], capture_output=True, text=True, cwd=CHECKOUT)


def test_wheel_holds_lvm_alone():
    found = find_packages(str(CHECKOUT), **PYPROJECT["tool"]["setuptools"]["packages"]["find"])
    assert {name.partition(".")[0] for name in found} == {"lvm"}
    assert "entry-points" not in PYPROJECT["project"], "an entry point could only name what the wheel does not hold"


@pytest.mark.parametrize("extra", EXTRAS)
def test_extra_installs_what_it_is_asked_for(extra):
    installed = {word.partition(">")[0].partition("<")[0] for word in PYPROJECT["project"]["optional-dependencies"][extra]}
    packages = {"pythonjsonlogger": "python-json-logger"}
    assert {packages.get(name, name.replace("_", "-")) for name in EXTRAS[extra]} <= installed


@pytest.mark.slow
def test_library_needs_no_extra():
    """Everything but the server and the vec2text decoder is imported; what an optional package gives is absent."""
    code = "import pkgutil, importlib, lvm\n"
    code += "names = [m.name for m in pkgutil.walk_packages(lvm.__path__, 'lvm.', onerror=lambda _: None)]\n"
    code += "left_out = ('lvm.serving', 'lvm.decoding.vec2text', 'lvm.__main__')\n"
    code += "for name in names:\n    if not name.startswith(left_out): importlib.import_module(name)\n"
    done = without_extras(code)
    assert done.returncode == 0, done.stderr


def test_serve_without_its_extra_is_one_sentence():
    done = without_extras("from lvm.cli.main import main; main()", "serve", "--model", "models/champion")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lvm: 'lvm serve' needs fastapi, ") and done.stderr.endswith(": pip install 'lvm-pipeline[serve]'\n")


def test_flow_without_its_extra_is_one_sentence():
    done = without_extras("import flows.retrain_all")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flows: a flow needs mlflow, prefect, psutil: pip install 'lvm-pipeline[pipeline]'\n"
