"""A newer champion is taken over, a broken one is refused while the old one goes on."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from lvm.atomic_io import publish_folder
from lvm.errors import InputError
from lvm.serving.metrics import Measures
from lvm.serving.model_store import Models
from lvm.serving.requests import FieldError
from tests.lvm.serving.conftest import CPU


@pytest.fixture()
def champion(model: Path, tmp_path: Path) -> Path:
    """A link as the flow publishes it."""
    publish_folder(model, tmp_path / "champion", "lstm-tiny-v1")
    return tmp_path / "champion"


@pytest.fixture()
def measures() -> Measures:
    return Measures(lambda: 0)


def refresh(models: Models) -> None:
    asyncio.run(models.refresh())


def test_published_champion_is_taken_over(champion, model, measures):
    models = Models([champion], CPU, measures)
    assert models.get(None).name == "lstm-tiny-v1"
    refresh(models)
    publish_folder(model, champion, "lstm-tiny-v2")
    refresh(models)
    assert models.get(None).name == "lstm-tiny-v2" and models.errors == {}
    assert 'lvm_reloads_total{outcome="taken over"} 1.0' in measures.text().decode()
    assert 'lvm_model{model="lstm-tiny-v2"} 1.0' in measures.text().decode() and "tiny-v1" not in measures.text().decode()


def broken(model: Path, champion: Path) -> None:
    copy = shutil.copytree(model, champion.parent / "broken")
    values = json.loads((copy / "config.json").read_text())
    values["files"]["model.safetensors"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(values))
    publish_folder(copy, champion, "lstm-broken-v2")


def test_broken_champion_is_refused_once_and_the_old_one_goes_on_until_a_good_one_comes(champion, model, measures, contexts):
    models = Models([champion], CPU, measures)
    before = models.get(None)
    broken(model, champion)
    for _ in range(3):
        refresh(models)
    assert models.get(None) is before and before.predict(contexts).decoder.shape == (6, 384)
    assert "missing, truncated or altered" in models.errors["champion"]
    assert 'lvm_reloads_total{outcome="refused"} 1.0' in measures.text().decode(), "it is told once"
    publish_folder(model, champion, "lstm-tiny-v3")
    refresh(models)
    assert models.get(None).name == "lstm-tiny-v3" and models.errors == {}


def test_champion_that_vanishes_is_told_and_goes_on(champion, measures):
    models = Models([champion], CPU, measures)
    champion.unlink()
    refresh(models)
    assert models.get(None).name == "lstm-tiny-v1" and "holds no config.json" in models.errors["champion"]


def test_model_of_another_encoder_does_not_take_over(champion, model, measures):
    models = Models([champion], CPU, measures)
    copy = shutil.copytree(model, champion.parent / "other")
    values = json.loads((copy / "config.json").read_text())
    values["recipe"]["pooling"] = "cls"
    (copy / "config.json").write_text(json.dumps(values))
    publish_folder(copy, champion, "lstm-other-v2")
    refresh(models)
    assert models.get(None).name == "lstm-tiny-v1" and "start a server of its own" in models.errors["champion"]
    with pytest.raises(InputError, match="start a server of its own"):
        Models([model, champion], CPU, measures)


def test_models_beside_the_champion_are_asked_by_name_and_none_is_loaded_twice(champion, model, measures, tmp_path):
    publish_folder(model, tmp_path / "elsewhere" / "link", "lstm-tiny-v9")
    models = Models([champion, tmp_path / "elsewhere" / "link", champion.resolve()], CPU, measures)
    assert [served.name for served in models.served] == ["lstm-tiny-v1", "lstm-tiny-v9"]
    assert models.get("lstm-tiny-v9").name == "lstm-tiny-v9"
    with pytest.raises(FieldError, match="'x' is not served; there are lstm-tiny-v1, lstm-tiny-v9"):
        models.get("x")


def test_folder_without_a_model_is_refused_with_the_remedy(tmp_path, measures):
    with pytest.raises(InputError, match="not a model; 'make demo' makes a champion"):
        Models([tmp_path], CPU, measures)
