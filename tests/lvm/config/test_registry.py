"""A registry knows its own entries and those of plug-ins, in order, and names them when asked for another."""

import pytest

from lvm.config import ARCHITECTURES, LOSS_TERMS, LossConfig, Registry, parse
from lvm.errors import InputError

PLUGIN = """
from lvm.config import ARCHITECTURES
from lvm.models.recurrent import LSTMTrunk

@ARCHITECTURES.register("{name}")
class Mine(LSTMTrunk):
    pass
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module outside the package that registers an architecture, named by LVM_PLUGINS."""
    (tmp_path / "my_plugin.py").write_text(PLUGIN.format(name="mine"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LVM_PLUGINS", "my_plugin")
    fresh: Registry[type] = Registry("architecture", "lvm.models")
    fresh._entries.update(ARCHITECTURES.items())
    monkeypatch.setattr("lvm.config.ARCHITECTURES", fresh)
    return fresh


def test_the_packages_own_entries_come_in_order() -> None:
    assert ARCHITECTURES.names()[:5] == ["lstm", "gru", "mamba2", "transformer", "amn"]
    assert LOSS_TERMS.names()[:6] == ["regression", "norm", "infonce", "moments", "variance", "mse"]


def test_a_plugin_is_imported_when_the_registry_is_first_asked(plugin) -> None:
    assert plugin.names()[-1] == "mine" and plugin["mine"].__name__ == "Mine"


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch) -> None:
    monkeypatch.setenv("LVM_PLUGINS", "no_such_module")
    with pytest.raises(InputError, match="variable LVM_PLUGINS: module 'no_such_module' cannot be imported"):
        Registry("architecture", "lvm.models").names()


def test_an_unknown_name_is_refused_beside_those_there_are() -> None:
    with pytest.raises(InputError, match=r"architecture 'rnn' is not known: there are .*lstm.*"):
        ARCHITECTURES["rnn"]


def test_a_name_is_given_once() -> None:
    registry: Registry[object] = Registry("thing", "lvm.errors")
    registry.register("one", colour="red")(test_a_name_is_given_once)
    assert registry.about("one") == {"colour": "red"} and list(registry) == ["one"] and len(registry) == 1
    with pytest.raises(ValueError, match="thing 'one' is registered already"):
        registry.register("one")(test_an_unknown_name_is_refused_beside_those_there_are)


def test_the_weight_of_a_registered_term_is_a_setting(monkeypatch) -> None:
    monkeypatch.setitem(LOSS_TERMS._entries, "smooth", object())
    config = parse(LossConfig, {"smooth": 0.5})
    assert config.weight("smooth") == 0.5 and config.weights()["smooth"] == 0.5 and config.model_dump()["smooth"] == 0.5
    assert parse(LossConfig, {}).weight("smooth") == 0
    with pytest.raises(InputError, match="field 'smooth'"):
        parse(LossConfig, {"smooth": -1})
