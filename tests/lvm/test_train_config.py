"""Settings are laid over the defaults of a training, or refused by name."""

import pytest

from lvm.config import train_config
from lvm.errors import InputError


def test_settings_are_laid_over_the_defaults() -> None:
    config = train_config("gru", 384, ["model.width=512", "learning_rate=2e-4", "sampler.anchors_per_document=null", "loss.norm=0"])
    assert (config.model.arch, config.model.dim, config.model.width) == ("gru", 384, 512)
    assert (config.learning_rate, config.sampler.anchors_per_document, config.loss.norm) == (2e-4, None, 0)
    default = train_config("gru", 384)
    assert config == default.model_copy(
        update={
            "model": default.model.model_copy(update={"width": 512}),
            "loss": default.loss.model_copy(update={"norm": 0.0}),
            "learning_rate": 2e-4,
        }
    )


def test_the_last_of_two_settings_of_one_field_counts() -> None:
    assert train_config("lstm", 8, ["epochs=3", "epochs=5"]).epochs == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "setting 'epochs': expected FIELD=VALUE"),
        ("epochs=0", "field 'epochs': .*greater than or equal to 1"),
        ("epochs=many", "field 'epochs': .*valid integer"),
        ("epochs=1.5", "field 'epochs': .*integer"),
        ("epoch=3", r"unknown field 'epoch' \(known: model, loss, .*epochs"),
        ("model.widht=512", r"unknown field 'model\.widht' \(known: arch, dim, width"),
        ("loss.infonse=1", r"unknown field 'loss\.infonse' \(known: regression, norm"),
        ("model.width=100", r"field 'model\.width': .*multiple of 64"),
        ("loss.infonce=-1", r"field 'loss\.infonce': .*greater than or equal to 0"),
        ("model.arch=lstmm", r"field 'model\.arch': .*'lstm'"),
        ("model.arch.size=3", "setting 'model.arch.size=3': 'arch' is a value, not a group of fields"),
        ("model=5", "field 'model': "),
        ("learning_rate=NaN", "field 'learning_rate'"),
    ],
)
def test_bad_setting_is_refused_by_name(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_config("lstm", 384, [setting])
