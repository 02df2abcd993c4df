"""A newer champion replaces the old one; a broken one is refused, and the old one stays."""

import asyncio
import shutil
from pathlib import Path

import pytest
import torch

from lvm.atomic_io import publish_folder
from lvm.errors import InputError
from lvm.serving.metrics import ServingMetrics
from lvm.serving.model_store import ModelStore
from lvm.serving.requests import FieldError
from tests.support.edited import edit_json

CPU = torch.device("cpu")


@pytest.fixture()
def champion(model_folder: Path, tmp_path: Path) -> Path:
    """A link as the flow publishes it."""
    publish_folder(model_folder, tmp_path / "champion", "lstm-tiny-v1")
    return tmp_path / "champion"


@pytest.fixture()
def metrics() -> ServingMetrics:
    return ServingMetrics(lambda: 0)


def refresh(models: ModelStore) -> None:
    asyncio.run(models.refresh())


def test_published_champion_replaces_the_old_one(champion, model_folder, metrics):
    models = ModelStore([champion], CPU, metrics)
    assert models.get(None).name == "lstm-tiny-v1"
    refresh(models)
    publish_folder(model_folder, champion, "lstm-tiny-v2")
    refresh(models)
    assert models.get(None).name == "lstm-tiny-v2" and models.errors == {}
    assert 'lvm_reloads_total{outcome="taken over"} 1.0' in metrics.exposition().decode()
    assert 'lvm_model{model="lstm-tiny-v2"} 1.0' in metrics.exposition().decode() and "tiny-v1" not in metrics.exposition().decode()


def publish_broken(model_folder: Path, champion: Path) -> None:
    copy = shutil.copytree(model_folder, champion.parent / "broken")
    edit_json(copy / "config.json", lambda values: values["files"].update({"model.safetensors": "0" * 64}))
    publish_folder(copy, champion, "lstm-broken-v2")


def test_broken_champion_is_refused_once_and_the_old_one_stays_until_a_good_one_comes(champion, model_folder, metrics, contexts):
    models = ModelStore([champion], CPU, metrics)
    before = models.get(None)
    publish_broken(model_folder, champion)
    for _ in range(3):
        refresh(models)
    assert models.get(None) is before and before.predict(contexts).decoder.shape == (6, 384)
    assert "missing, truncated or altered" in models.errors["champion"]
    assert 'lvm_reloads_total{outcome="refused"} 1.0' in metrics.exposition().decode(), "it is counted once"
    publish_folder(model_folder, champion, "lstm-tiny-v3")
    refresh(models)
    assert models.get(None).name == "lstm-tiny-v3" and models.errors == {}


def test_champion_stays_when_its_folder_vanishes(champion, metrics):
    models = ModelStore([champion], CPU, metrics)
    champion.unlink()
    refresh(models)
    assert models.get(None).name == "lstm-tiny-v1" and "has no config.json" in models.errors["champion"]


def test_model_of_another_encoder_is_refused(champion, model_folder, metrics):
    models = ModelStore([champion], CPU, metrics)
    copy = shutil.copytree(model_folder, champion.parent / "other")
    edit_json(copy / "config.json", lambda values: values["recipe"].update(pooling="cls"))
    publish_folder(copy, champion, "lstm-other-v2")
    refresh(models)
    assert models.get(None).name == "lstm-tiny-v1" and "serve it with another server" in models.errors["champion"]
    with pytest.raises(InputError, match="serve it with another server"):
        ModelStore([model_folder, champion], CPU, metrics)


def test_models_are_found_by_name_and_none_is_loaded_twice(champion, model_folder, metrics, tmp_path):
    publish_folder(model_folder, tmp_path / "elsewhere" / "link", "lstm-tiny-v9")
    models = ModelStore([champion, tmp_path / "elsewhere" / "link", champion.resolve()], CPU, metrics)
    assert [model.name for model in models.models] == ["lstm-tiny-v1", "lstm-tiny-v9"]
    assert models.get("lstm-tiny-v9").name == "lstm-tiny-v9"
    with pytest.raises(FieldError, match="'x' is not served; there are lstm-tiny-v1, lstm-tiny-v9"):
        models.get("x")


def test_folder_without_a_model_is_refused_with_the_remedy(tmp_path, metrics):
    with pytest.raises(InputError, match="it is not a model: 'make demo' makes a champion"):
        ModelStore([tmp_path], CPU, metrics)
