"""Models that older versions wrote keep their predictions and get what the present version needs beside them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lvm.atomic_io import sha256_file
from lvm.data.dataset import open_dataset
from lvm.errors import GateRefused, InputError
from lvm.evaluation.record import read_record
from lvm.migration.migrate import migrate
from lvm.models.baselines import fit_baselines
from lvm.models.checkpoint import FILES, FORMAT, golden_predictions, load_checkpoint, read_config
from tests.support.commands import tree
from tests.support.older_versions import CPU, TABLE, TEXT, copied

MODELS = ["085d1e9/ensemble", "085d1e9/legacy", "3a03dfc/lstm"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small dataset of 085d1e9; only files derived from it are added."""
    return copied(TABLE, tmp_path_factory.mktemp("table"))


@pytest.mark.parametrize("name", MODELS)
def test_migrated_model_predicts_what_it_predicted_when_it_was_saved(name: str, table: Path, tmp_path: Path) -> None:
    path = copied(name, tmp_path)
    recorded = load_file(path / "golden.safetensors")
    found = migrate(path, table, CPU)
    checkpoint = load_checkpoint(path, CPU)
    y_dec, y_cos = golden_predictions(checkpoint.model, recorded["inputs"])
    torch.testing.assert_close(y_dec, recorded["y_dec"], rtol=0, atol=1e-5)
    torch.testing.assert_close(y_cos, recorded["y_cos"], rtol=0, atol=1e-5)
    assert checkpoint.config.format == FORMAT and checkpoint.parity <= 1e-6
    assert (found.path, found.kind) == (path, "model") and found.done[0].endswith(f"became {FORMAT}, with the same predictions")


def test_its_baselines_are_the_present_ones_fitted_to_its_dataset(table: Path, tmp_path: Path) -> None:
    path = copied("3a03dfc/lstm", tmp_path)
    migrate(path, table, CPU)
    loaded, config = load_checkpoint(path, CPU), read_config(path).train
    fitted = fit_baselines(open_dataset(table), config.context_length, config.eval_windows, CPU)
    assert (loaded.baselines.names, loaded.baselines.choices()) == (fitted.names, fitted.choices())


def test_old_folder_is_kept_whole_and_the_new_one_holds_the_present_files(table: Path, tmp_path: Path) -> None:
    path = copied("085d1e9/ensemble", tmp_path)
    (path / "training").mkdir()
    (path / "training" / "metrics.jsonl").write_text("{}\n")
    (path / "training" / "state.safetensors").write_bytes(b"state")
    before = tree(path)
    found = migrate(path, table, CPU)
    assert found.kept == tmp_path / "ensemble.format-5" and tree(found.kept) == before
    assert {file.name for file in path.iterdir()} == {*FILES, "config.json", "training"}
    assert [file.name for file in (path / "training").iterdir()] == ["metrics.jsonl"]
    assert {file.name for file in tmp_path.iterdir()} == {"ensemble", "ensemble.format-5"}


def test_card_says_what_its_figures_rest_on(table: Path, tmp_path: Path) -> None:
    path = copied("085d1e9/legacy", tmp_path)
    old = (path / "card.md").read_text(encoding="utf-8")
    migrate(path, table, CPU)
    card = (path / "card.md").read_text(encoding="utf-8")
    assert card.startswith(old) and "Migrated from format 5. The skill" in card


def test_evaluation_is_made_anew_beside_the_present_baselines(table: Path, tmp_path: Path) -> None:
    path = copied("085d1e9/ensemble", tmp_path)
    (path / "verdict.json").write_text("{}")
    found = migrate(path, table, CPU)
    assert "it was evaluated anew, beside the present baselines" in found.done
    record = read_record(path)
    assert record is not None and not (path / "verdict.json").exists()
    names = load_checkpoint(path, CPU).baselines.names
    assert set(record["val"]["baselines"]) == set(record["test"]["baselines"]) == set(names)


@pytest.mark.slow
def test_model_of_real_text_keeps_its_predictions_and_is_evaluated(tmp_path: Path) -> None:
    path, data = copied("085d1e9/lstm", tmp_path), copied(TEXT, tmp_path)
    migrate(path, data, CPU)
    checkpoint, recorded = load_checkpoint(path, CPU), load_file(tmp_path / "lstm.format-5" / "golden.safetensors")
    for found, name in zip(golden_predictions(checkpoint.model, recorded["inputs"]), ("y_dec", "y_cos"), strict=True):
        torch.testing.assert_close(found, recorded[name], rtol=0, atol=1e-5)
    before = json.loads((tmp_path / "lstm.format-5" / "verdict.json").read_text())["test"]["metrics"]["cosine"]["value"]
    record = read_record(path)
    assert record is not None and record["test"]["metrics"]["cosine"]["value"] == pytest.approx(before, abs=1e-5)


def test_migrated_model_is_verified_and_left_alone_the_second_time(table: Path, tmp_path: Path) -> None:
    path = copied("085d1e9/legacy", tmp_path)
    migrate(path, table, CPU)
    before = tree(tmp_path)
    again = migrate(path, None, CPU)
    assert again.done == () and again.kept is None and tree(tmp_path) == before


def test_a_link_to_a_model_leads_to_the_migrated_one(table: Path, tmp_path: Path) -> None:
    copied("085d1e9/legacy", tmp_path / "versions")
    (tmp_path / "champion").symlink_to(Path("versions") / "legacy")
    assert migrate(tmp_path / "champion", table, CPU).path == tmp_path / "versions" / "legacy"
    assert read_config(tmp_path / "champion").format == FORMAT


# Refusals, after which the model is as it was


def flip(path: Path, name: str) -> None:
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)


def old_config(path: Path, **changes: object) -> None:
    """Change a configuration as the older versions write it, without a digest."""
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: flip(path, "model.safetensors"), "model.safetensors is missing, truncated or altered"),
        (lambda path: (path / "familiarity.safetensors").unlink(), "familiarity.safetensors is missing"),
        (lambda path: old_config(path, format=4), "field 'format' is 4; formats 5, 6, 7 are read here"),
        (lambda path: old_config(path, format=FORMAT + 1), f"field 'format' is {FORMAT + 1}"),
        (lambda path: old_config(path, speed=1), "unknown field 'speed'"),
        (lambda path: old_config(path, train={"model": 3}), "field 'model'"),
    ],
)
def test_damaged_or_unknown_model_is_refused_and_stays(table: Path, tmp_path: Path, harm: Callable[[Path], object], told: str) -> None:
    path = copied("085d1e9/legacy", tmp_path)
    harm(path)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=told):
        migrate(path, table, CPU)
    assert tree(tmp_path) == before


def test_model_that_would_predict_otherwise_is_refused_and_stays(table: Path, tmp_path: Path) -> None:
    path = copied("085d1e9/legacy", tmp_path)
    weights = load_file(path / "model.safetensors")
    weights["head.bias"] += 0.1
    save_file(weights, path / "model.safetensors")
    files = {file.name: sha256_file(file) for file in path.iterdir() if file.suffix in (".safetensors", ".md")}
    old_config(path, files=files)
    before = tree(tmp_path)
    with pytest.raises(GateRefused, match="golden predictions would differ by"):
        migrate(path, table, CPU)
    assert tree(tmp_path) == before


def test_dataset_that_is_not_given_or_another_is_told_by_its_digest(table: Path, tmp_path: Path) -> None:
    path = copied("085d1e9/lstm", tmp_path)
    with pytest.raises(InputError, match=r"on the dataset 691707dfd699 that it was trained on: give --dataset"):
        migrate(path, None, CPU)
    with pytest.raises(InputError, match=r"is 33c78a067aaf, but .*lstm was trained on 691707dfd699: give that one"):
        migrate(path, table, CPU)


def test_place_of_the_old_folder_that_is_taken_is_refused_before_anything_is_fitted(table: Path, tmp_path: Path) -> None:
    path = copied("085d1e9/legacy", tmp_path)
    shutil.copytree(path, tmp_path / "legacy.format-5")
    with pytest.raises(InputError, match=r"legacy\.format-5 exists, where the old model would be kept: move it away"):
        migrate(path, table, CPU)


def test_present_reader_names_the_command(tmp_path: Path) -> None:
    path = copied("3a03dfc/lstm", tmp_path)
    with pytest.raises(InputError, match=rf"field 'format' must be {FORMAT}; run 'lvm migrate {path} --dataset DATA', or train"):
        read_config(path)


def test_present_model_that_is_altered_is_refused(table: Path, tmp_path: Path) -> None:
    path = copied("3a03dfc/lstm", tmp_path)
    migrate(path, table, CPU)
    flip(path, "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors is missing, truncated or altered"):
        migrate(path, None, CPU)
