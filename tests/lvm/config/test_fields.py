"""Configurations are frozen, documented, and refuse what they do not know."""

import inspect
import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import lvm
from lvm import config as module
from lvm.config import LOSS_TERMS, Config, LossConfig, ModelConfig, SamplerConfig, TrainConfig, parse
from lvm.data.manifest import Manifest, Shard
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError

OWN = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, Config) and kind is not Config]
EVERY = [*OWN, EncoderRecipe, Manifest, Shard]
MODEL = {"arch": "gru", "dim": 384}
every_kind = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)


def smallest(kind: type[Config]) -> dict[str, object]:
    """The values that `kind` cannot do without."""
    return {TrainConfig: {"model": MODEL}, ModelConfig: MODEL}.get(kind, {})  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_an_unknown_field_is_refused_by_name_beside_the_known_ones(kind: type[Config]) -> None:
    with pytest.raises(InputError) as refusal:
        parse(kind, smallest(kind) | {"learning_rte": 1})
    assert str(refusal.value).startswith(f"{kind.__name__}: unknown field 'learning_rte' (known: {', '.join(kind.model_fields)}")


def test_an_unknown_field_of_a_part_is_named_with_its_path() -> None:
    with pytest.raises(InputError, match=r"unknown field 'loss\.infonc'"):
        parse(TrainConfig, {"model": MODEL, "loss": {"infonc": 1}})


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InputError) as refusal:
        parse(ModelConfig, {"arch": "rnn", "width": 100, "wdth": 3})
    for field in ("'arch'", "'dim'", "'width'", "'wdth'"):
        assert field in str(refusal.value)


@every_kind
def test_every_field_says_what_it_means(kind: type[Config]) -> None:
    silent = [name for name, field in kind.model_fields.items() if not (field.description or "").strip()]
    assert silent == []


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_a_configuration_never_changes(kind: type[Config]) -> None:
    made = parse(kind, smallest(kind))
    for name in kind.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, name, getattr(made, name))


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_a_configuration_survives_json(kind: type[Config]) -> None:
    made = parse(kind, smallest(kind))
    assert parse(kind, json.loads(json.dumps(made.model_dump()))) == made


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_no_field_goes_unread(kind: type[Config]) -> None:
    root = Path(lvm.__file__).parent
    code = "\n".join(file.read_text(encoding="utf-8") for file in root.rglob("*.py") if file.parent.name != "config")
    by_name = set(LOSS_TERMS) if kind is LossConfig else set()  # weights are read through the registry
    assert [name for name in kind.model_fields if name not in by_name and not re.search(rf"\.{name}\b", code)] == []


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (ModelConfig, MODEL | {"arch": "rwkv"}, "arch"),
        (ModelConfig, MODEL | {"dim": 0}, "dim"),
        (ModelConfig, MODEL | {"width": 96}, "width"),
        (ModelConfig, MODEL | {"layers": 0}, "layers"),
        (ModelConfig, MODEL | {"dropout": 1.0}, "dropout"),
        (ModelConfig, MODEL | {"lags": 0}, "lags"),
        (LossConfig, {"infonce": -0.1}, "infonce"),
        (LossConfig, {"temperature": 0}, "temperature"),
        (SamplerConfig, {"stretches": 0}, "stretches"),
        (SamplerConfig, {"anchors_per_document": 0}, "anchors_per_document"),
        (TrainConfig, {"model": MODEL, "epochs": 0}, "epochs"),
        (TrainConfig, {"model": MODEL, "learning_rate": "fast"}, "learning_rate"),
        (TrainConfig, {"model": MODEL | {"width": 1}}, "model.width"),
        (TrainConfig, {"model": MODEL, "context_length": 0}, "context_length"),
        (TrainConfig, {"model": MODEL, "context_length": 65}, "context_length"),
        (TrainConfig, {}, "model"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_field(kind: type[Config], values: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=f"field '{re.escape(field)}'"):
        parse(kind, values)


def test_the_architecture_and_the_dimension_have_no_default() -> None:
    assert {name for name, field in ModelConfig.model_fields.items() if field.is_required()} == {"arch", "dim"}
