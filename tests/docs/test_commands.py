"""The commands that the documentation shows exist, with the options and settings that it gives them."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt

from lvm.cli.main import app
from lvm.config import PRESETS, read_settings
from lvm.errors import InputError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name != "extending.md"]  # its commands are run, with its plug-in, by test_extending.py
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def shown(start: str) -> Iterator[tuple[str, list[str]]]:
    """Words after `start` of every command in a code block or in code within a line, with where it stands."""
    for page in PAGES:
        tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
        code = [token.content for token in tokens if token.type == "fence" and token.info in ("", "sh", "bash")]
        code += [child.content for token in tokens for child in token.children or [] if child.type == "code_inline"]
        for line in "\n".join(code).replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace(".venv/bin/", ""), comments=True)
            if " ".join(words).startswith(start):
                yield f"{page.name}: {line.strip()}", words[len(start.split()) :]


def wrong(words: list[str]) -> str | None:
    """What is wrong with a command of `lvm`."""
    if words[0] not in COMMANDS:
        return f"no command {words[0]}"
    known = {option for param in COMMANDS[words[0]].params for option in param.opts} | {"--help"}
    if unknown := {word for word in words if word.startswith("--")} - known:
        return f"no option {', '.join(unknown)}"
    given = list(pairwise(words))
    try:
        read_settings(None, None, [setting.replace("=N", "=1") for option, setting in given if option == "--set"])
    except InputError as error:
        return str(error)
    presets = {preset for option, preset in given if option == "--preset"} - {*PRESETS, "NAME"}
    return f"no preset {', '.join(presets)}" if presets else None


def test_lvm_has_every_command_option_setting_and_preset():
    commands = list(shown("lvm "))
    assert len(commands) > 20
    assert [f"{place}: {problem}" for place, words in commands if (problem := wrong(words))] == []


def test_modules_that_are_run_exist():
    assert [place for place, words in shown("python -m ") if not importlib.util.find_spec(words[0])] == []


def test_make_has_every_target():
    assert [place for place, words in shown("make ") if not {word for word in words if "=" not in word} <= TARGETS] == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("learn data", "no command learn"),
        ("train data --architecture lstm", "no option --architecture"),
        ("train data --set model.widht=64", "unknown field 'model.widht'"),
        ("train data --preset best", "no preset best"),
    ],
)
def test_what_is_wrong_with_a_command_is_found(command, problem):
    assert problem in (wrong(command.split()) or "")


def test_commands_are_found_in_blocks_and_in_lines(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("```\nlvm train data --arch lstm   # a comment\n```\nand `make nothing`.\n")
    monkeypatch.setattr(f"{__name__}.PAGES", [page])
    assert [words for _, words in shown("lvm ")] == [["train", "data", "--arch", "lstm"]]
    assert [words for _, words in shown("make ")] == [["nothing"]]
