"""Every setting is listed, can be set under the listed name, and stands in the documentation as the code has it."""

import json
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from lvm.cli.main import app
from lvm.config import LOSS_TERMS, read_settings
from lvm.config.listing import list_settings, settings_markdown, settings_schema

DOCS = Path(__file__).parents[3] / "docs"
BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"


@pytest.mark.parametrize("setting", list_settings(), ids=lambda setting: setting.name)
def test_every_listed_setting_can_be_set_and_says_what_it_means(setting) -> None:
    assert setting.meaning
    read_settings(assignments=[f"{setting.name}={json.dumps(setting.default)}"])


def test_json_is_a_flat_list_of_one_object_a_field() -> None:
    found = json.loads(CliRunner().invoke(app, ["settings", "--json"]).stdout)
    assert [each["name"] for each in found] == [setting.name for setting in list_settings()]
    assert {"gates.parity", "splits.val", "chunker.language", "model.width", "decoder.rounds", "serving.burst"} <= {
        e["name"] for e in found
    }
    assert set(found[0]) == {"name", "section", "type", "default", "bounds", "meaning"}


def test_people_see_settings_and_presets() -> None:
    shown = CliRunner().invoke(app, ["settings"]).stdout
    assert "gates.parity" in shown and "quality" in shown


def test_the_schema_in_the_documentation_is_that_of_the_code() -> None:
    written = json.loads((DOCS / "settings.schema.json").read_text(encoding="utf-8"))
    assert written == settings_schema(), "run 'lvm settings --schema > docs/settings.schema.json'"


def test_the_table_in_the_documentation_is_that_of_the_code() -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    table = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert table == settings_markdown().strip(), "put the output of 'lvm settings --markdown' between the markers of docs/settings.md"


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        ({"epochs": 3, "lstm": {"model": {"width": 512}}, "gates": {"parity": 1e-3}}, True),
        ({"epohcs": 3}, False),
        ({"splits": {"val": 0.7}}, False),
        ({"model": {"arch": "lstm"}}, False),
        ({"loss": {"infonc": 1}}, False),
    ],
)
def test_the_schema_accepts_what_the_reader_accepts(values: dict[str, object], valid: bool) -> None:
    assert jsonschema.Draft202012Validator(settings_schema()).is_valid(values) == valid


def test_a_loss_term_from_outside_is_listed_with_its_weight(monkeypatch) -> None:
    def smooth() -> None:
        """Roughness of y_dec."""

    monkeypatch.setitem(LOSS_TERMS._entries, "smooth", smooth)
    assert [s.meaning for s in list_settings() if s.name == "loss.smooth"] == ["Weight of: Roughness of y_dec."]
    assert "smooth" in settings_schema()["$defs"]["LossConfig"]["properties"]
