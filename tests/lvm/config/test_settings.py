"""Settings come from a preset, a file and assignments, the later one winning; whatever is wrong is named in one sentence."""

from pathlib import Path

import pytest

from lvm.config import ARCHITECTURES, PRESETS, read_settings, train_config
from lvm.errors import InputError


def test_without_anything_every_setting_has_its_default() -> None:
    settings = read_settings()
    assert settings.chunker.max_tokens == 64 and settings.splits.val == 0.1 and settings.gates.parity == 1e-4
    assert settings.decoder.rounds == 20 and settings.serving.burst == 32 and settings.train("lstm", 8).epochs == 10


def test_every_part_of_the_pipeline_is_set_in_one_namespace() -> None:
    given = ["chunker.language=de", "splits.val=.05", "gates.parity=1e-3", "decoder.rounds=40", "decoder.model.width=128"]
    settings = read_settings(assignments=[*given, "serving.watch=null", "model.width=512", "loss.infonce=0.2", "epochs=3"])
    assert (settings.chunker.language, settings.splits.val, settings.gates.parity) == ("de", 0.05, 1e-3)
    assert (settings.decoder.rounds, settings.decoder.model.width, settings.serving.watch) == (40, 128, None)
    train = settings.train("gru", 384)
    assert (train.model.width, train.model.arch, train.model.dim, train.loss.infonce, train.epochs) == (512, "gru", 384, 0.2, 3)


def test_assignments_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 12\npatience: 5\nmodel: {layers: 2}\ngates: {parity: 0.001}\n")
    settings = read_settings("quality", file, ["patience=7"])
    train = settings.train("lstm", 384)
    assert (train.sampler.length, train.epochs, train.patience) == (128, 12, 7)
    assert (train.model.width, train.model.layers, settings.gates.parity) == (1024, 2, 1e-3)


def test_the_last_of_two_assignments_of_one_field_counts() -> None:
    assert train_config("lstm", 8, ["epochs=3", "epochs=5", "sampler.anchors_per_document=null"]).epochs == 5


def test_a_setting_may_be_for_one_architecture(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("model: {width: 128}\ntransformer:\n  model: {layers: 3}\n  learning_rate: 0.0002\n")
    settings = read_settings(None, file, ["lstm:model.width=512"])
    assert [settings.train(arch, 8).model.width for arch in ("lstm", "gru", "transformer")] == [512, 128, 128]
    assert [settings.train(arch, 8).model.layers for arch in ("lstm", "transformer")] == [1, 3]
    assert settings.train("transformer", 8).learning_rate == 2e-4


def test_a_later_general_setting_wins_over_an_earlier_one_for_an_architecture() -> None:
    assert read_settings("quality", None, []).train("transformer", 8).model.layers == 2
    assert read_settings("quality", None, ["model.layers=3"]).train("transformer", 8).model.layers == 3


def test_settings_go_to_another_process_as_a_file(tmp_path: Path) -> None:
    settings = read_settings("quality", None, ["gru:model.dropout=0.1", "gates.parity=1e-3", "epochs=2"])
    file = tmp_path / "gru.yaml"
    file.write_text(settings.as_file("gru"))
    again = read_settings(None, file)
    assert again.train("gru", 8) == settings.train("gru", 8) and again.gates == settings.gates


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("epohcs=3", "unknown setting 'epohcs': there are model, loss, sampler, epochs, "),
        ("epohcs=3", "did you mean 'epochs'?"),
        ("loss.infonc=1", "unknown field 'loss.infonc' (known: regression, norm, infonce, "),
        ("model.widht=1", "unknown field 'model.widht' (known: arch, dim, width, "),
        ("gates.parti=1", "unknown field 'gates.parti' (known: chunk_order_warn, "),
        ("decoder.model.widht=1", "unknown field 'decoder.model.widht' (known: width, "),
        ("splits.val=0.7", "field 'splits.val': Input should be less than 0.5"),
        ("rnn:epochs=3", "architecture 'rnn' is not known: there are "),
        ("lstm:gates.parity=1", "setting 'gates.parity' cannot be for one architecture"),
        ("model.arch=gru", "the architecture is named by --arch"),
        ("model.arch.size=3", "the architecture is named by --arch"),
        ("model.width=100", "field 'model.width': Input should be a multiple of 64"),
        ("loss.infonce=-1", "field 'loss.infonce': Input should be greater than or equal to 0"),
        ("epochs=0", "field 'epochs': Input should be greater than or equal to 1"),
        ("epochs=1.5", "field 'epochs': Input should be a valid integer"),
        ("epochs=many", "field 'epochs': Input should be a valid integer"),
        ("learning_rate=NaN", "field 'learning_rate'"),
        ("model.width", "expected FIELD=VALUE, such as model.width=512"),
        ("epochs.more=1", "field 'epochs'"),
        ("model=3", "field 'model'"),
    ],
)
def test_what_is_wrong_is_named_with_what_there_is(assignment: str, sentence: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_settings(assignments=[assignment])
    assert sentence in str(refusal.value)


def test_the_longest_context_is_the_one_whose_chunks_the_pool_leaves_out() -> None:
    assert train_config("lstm", 8, ["context_length=64"]).context_length == 64
    with pytest.raises(InputError, match=r"field 'context_length': Input should be less than or equal to 64"):
        train_config("lstm", 8, ["context_length=65"])


@pytest.mark.parametrize(("written", "salt"), [("2", "2"), ("spring", "spring"), ("2026-01", "2026-01"), ('""', "")])
def test_a_salt_may_be_any_text_or_number(written: str, salt: str) -> None:
    assert read_settings(assignments=[f"splits.salt={written}"]).splits.salt == salt


def test_a_field_below_a_value_is_refused() -> None:
    with pytest.raises(InputError, match="'epochs' is a value, not a group of fields"):
        read_settings(assignments=["epochs=1", "epochs.more=1"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs: [", "is not YAML"),
        ("- epochs", "expected settings by name, such as 'epochs: 20'"),
        ("epohcs: 3", "unknown setting 'epohcs'"),
        ("lstm: {gates: {parity: 1}}", "cannot be for one architecture"),
        ("splits: 3", "SplitConfig: "),
        ("lstm: 3", "unknown setting 'lstm'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as refusal:
        read_settings(None, file)
    assert sentence in str(refusal.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config file .*none\.yaml cannot be read"):
        read_settings(None, tmp_path / "none.yaml")


def test_an_assignment_that_the_command_does_not_read_is_refused_but_a_file_may_be_for_every_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"setting 'splits\.val' has no effect here: this command reads the settings of gates, training"):
        read_settings(None, None, ["splits.val=0.2"], reads=("training", "gates"))
    file = tmp_path / "settings.yaml"
    file.write_text("splits: {val: 0.2}\nepochs: 3\n")
    assert read_settings(None, file, ["lstm:epochs=4"], reads=("training",)).train("lstm", 8).epochs == 4


def test_an_unknown_preset_is_refused_beside_those_there_are() -> None:
    with pytest.raises(InputError, match="preset 'fast' is not known: there are demo, quality, legacy"):
        read_settings("fast")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_for_every_architecture(name: str) -> None:
    assert PRESETS[name].__doc__
    for arch in ARCHITECTURES:
        train_config(arch, 384, preset=name)


def test_the_legacy_preset_has_one_loss_term_and_its_own_head() -> None:
    config = train_config("gru", 384, preset="legacy")
    assert config.model.heads == "legacy" and {name for name, weight in config.loss.weights().items() if weight} == {"mse"}
