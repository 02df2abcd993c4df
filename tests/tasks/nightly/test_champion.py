"""The champion is found whole, or one clear sentence says what of it is missing."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from lvm.data.dataset import Dataset
from lvm.errors import InputError
from lvm.gates.nightly import OWN_NUMBERS
from tasks.nightly.champion import Champion, champion_folder, find_champion
from tasks.tracking.runs import MODEL, connect
from tasks.workspace import Workspace
from tests.support.edited import edit_json
from tests.support.registered_champion import make_champion
from tests.support.trainings import trained


@pytest.fixture(scope="module")
def registered(workspace: Workspace, dataset: Dataset) -> Workspace:
    make_champion(workspace, dataset, trained(dataset))
    return workspace


@pytest.fixture()
def away(tmp_path: Path) -> Iterator[object]:
    """Moves a file or folder away for the length of a test."""
    moved: list[Path] = []

    def move(path: Path) -> None:
        moved.append(path)
        shutil.move(path, tmp_path / f"{len(moved)}-{path.name}")

    yield move
    for number, path in reversed(list(enumerate(moved, 1))):
        shutil.move(tmp_path / f"{number}-{path.name}", path)


def found(workspace: Workspace) -> Champion:
    with disable_run_logger():
        return find_champion.fn(workspace)


def refused(workspace: Workspace) -> str:
    with pytest.raises(InputError) as caught:
        found(workspace)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_champion_is_found_with_its_version_dataset_and_recorded_numbers(registered, dataset):
    champion = found(registered)
    assert (champion.arch, champion.version, champion.path) == ("lstm", "1", registered.champion.resolve())
    assert champion.dataset == registered.datasets / dataset.manifest.key[:12]
    run = MlflowClient().get_run(MlflowClient().get_model_version(MODEL, "1").run_id)
    assert champion.recorded == {name: run.data.metrics[f"test/{name}"] for name in OWN_NUMBERS}


def test_no_champion_is_said_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match=r"there is no champion at .*models/champion: make one with 'python -m flows.retrain_all'"):
        champion_folder(Workspace(root=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_link_to_a_folder_that_is_gone(registered, away):
    away(registered.champion.resolve())
    assert "models/champion points to versions/lstm-champion-v1, which is gone: restore that folder, or retrain" in refused(registered)


@pytest.mark.parametrize("gone", ["model.safetensors", "config.json", ""])
def test_registry_entry_whose_files_are_gone(registered, away, gone):
    source = MlflowClient().get_model_version_download_uri(MODEL, "1").removeprefix("file://")
    away(Path(source) / "artifacts" / gone if gone else Path(source))
    said = refused(registered)
    assert said.startswith("registry entry lvm version 1 (champion): ") and said.endswith("restore the artifacts, or retrain")
    assert (gone or "model.safetensors") in said


def test_registry_that_has_no_champion(registered):
    MlflowClient().delete_registered_model_alias(MODEL, "champion")
    try:
        assert "the registry has no lvm@champion, though " in refused(registered)
    finally:
        MlflowClient().set_registered_model_alias(MODEL, "champion", "1")


def test_registry_s_champion_that_is_another_model_than_the_exported_one(registered, tmp_path, away):
    config = registered.champion.resolve() / "config.json"
    written = config.read_bytes()
    away(config)
    config.write_bytes(written)
    edit_json(config, lambda values: values["files"].update({"model.safetensors": "0" * 64}))
    try:
        assert "version 1 (champion) is another model than " in refused(registered)
    finally:
        config.unlink()


def test_dataset_without_which_new_documents_cannot_be_told_from_old_ones(registered, dataset, away):
    away(registered.datasets / dataset.manifest.key[:12])
    assert f"the champion's dataset {dataset.manifest.digest[:12]} is not below " in refused(registered)


def test_store_that_was_cleared_under_an_exported_champion(registered, make_workspace, tmp_path):
    make_workspace(tmp_path)
    try:
        assert "the registry has no lvm@champion" in refused(registered)
    finally:
        connect(registered)
