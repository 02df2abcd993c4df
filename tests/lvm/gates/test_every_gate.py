"""The contract of all gates: each passes its oracle, and each poison is refused by the gates that were made for it.

A poison may fail others too. What each gate says, and where its line lies, is in the files beside this one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lvm.config import ARCHITECTURES, LOSS_TERMS, GateThresholds, LossConfig
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.windows import contexts
from lvm.decoding.evaluate import DecodedWindows, decode_windows
from lvm.decoding.gates import decoder_abc, encoder_contract
from lvm.errors import GateRefused
from lvm.evaluation.evaluate import Reference, make_reference
from lvm.gates.data import data_gates
from lvm.gates.model import CheckedModel, baselines, collapse, model_gates, moment_matching, reload_parity
from lvm.gates.result import GateResult
from lvm.gates.training import gradient_balance
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from lvm.training.trainer import Trainer
from tests.support.evaluations import checked, evaluation_of
from tests.support.lookup_decoder import ConstantDecoder, LookupDecoder, opened
from tests.support.poisoned_data import boundaries_lost, changed, column, copied, mixed, stored_twice, unread, within_documents
from tests.support.poisoned_decoder import Posing, spoilt
from tests.support.swapped_model import Backwards
from tests.support.trainings import tiny, trained, without_a_gradient

CPU = torch.device("cpu")
LIMITS = GateThresholds()


@dataclass(frozen=True)
class Sound:
    """What every poison is put into: real text, its encoder, a model trained on it, its validation windows."""

    dataset: Dataset
    encoder: Encoder
    checkpoint: Checkpoint
    ref: Reference
    decoded: DecodedWindows
    """By a decoder that looks each vector up among the real chunks."""

    folder: Path
    patch: pytest.MonkeyPatch

    def model(self, y_dec: torch.Tensor) -> list[GateResult]:
        """The gates on a model that answers so with both heads."""
        model = checked(evaluation_of(self.ref, y_dec))
        return [gate(model) for gate in (baselines, moment_matching, collapse)]

    def last(self) -> torch.Tensor:
        """The last chunk of every context, [N, D]."""
        return torch.cat([part[:, -1] for part in contexts(self.dataset.vectors, self.ref.windows.targets, 3, CPU)])


@pytest.fixture(scope="module")
def decoded(dataset: Dataset, encoder: Encoder) -> DecodedWindows:
    return decode_windows(dataset, load_checkpoint(trained(dataset), CPU), opened(LookupDecoder(dataset, encoder), dataset), "val")


@pytest.fixture(scope="module")
def ref(dataset: Dataset) -> Reference:
    return make_reference(dataset, load_checkpoint(trained(dataset), CPU), "val")


@pytest.fixture()
def sound(
    dataset: Dataset, encoder: Encoder, ref: Reference, decoded: DecodedWindows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Sound:
    return Sound(dataset, encoder, load_checkpoint(trained(dataset), CPU), ref, decoded, tmp_path / "poisoned", monkeypatch)


def copy_last_model(sound: Sound) -> list[GateResult]:
    return sound.model(sound.last())


def mean_vector_model(sound: Sound) -> list[GateResult]:
    return sound.model(sound.checkpoint.baselines.mean.expand_as(sound.ref.targets).clone())


def constant_output(sound: Sound) -> list[GateResult]:
    return sound.model(torch.randn(sound.dataset.dim, generator=torch.Generator().manual_seed(0)).expand_as(sound.ref.targets).clone())


def output_of_another_scale(sound: Sound) -> list[GateResult]:
    return sound.model(2 * sound.ref.targets)


def shuffled_chunk_order(sound: Sound) -> list[GateResult]:
    return data_gates(changed(sound.dataset, sound.folder, within_documents(sound.dataset, np.random.default_rng(0).permutation)), LIMITS)


def windows_across_documents(sound: Sound) -> list[GateResult]:
    return data_gates(boundaries_lost(sound.dataset, sound.folder), LIMITS)


def split_by_chunk_not_document(sound: Sound) -> list[GateResult]:
    splits = np.random.default_rng(0).choice(["train", "val", "test"], sound.dataset.n_rows, p=[0.8, 0.1, 0.1])
    return data_gates(changed(sound.dataset, sound.folder, columns={"split": splits.tolist()}), LIMITS)


def training_rows_in_the_test_split(sound: Sound) -> list[GateResult]:
    vectors, texts, _ = copied(sound.dataset, "test", 0.12, "both")
    return data_gates(changed(sound.dataset, sound.folder, vectors, {"text": texts}), LIMITS)


def duplicated_ingestion(sound: Sound) -> list[GateResult]:
    return data_gates(stored_twice(sound.dataset, sound.folder, renumbered=True), LIMITS)


def texts_that_the_encoder_cannot_read(sound: Sound) -> list[GateResult]:
    return data_gates(unread(sound.dataset, sound.encoder, sound.folder, np.arange(0, sound.dataset.n_rows, 10)), LIMITS)


def two_chunks_under_one_key(sound: Sound) -> list[GateResult]:
    index = column(sound.dataset, "chunk_index")
    index[sound.dataset.starts[3] + 1] = 0
    return data_gates(changed(sound.dataset, sound.folder, columns={"chunk_index": index}), LIMITS)


def evaluation_rows_mispaired(sound: Sound) -> list[GateResult]:
    return data_gates(changed(sound.dataset, sound.folder, mixed(sound.dataset, ["val", "test"])), LIMITS)


def wrong_recipe(sound: Sound) -> list[GateResult]:
    other = load_encoder("minilm")
    other._model[1].pooling_mode = "cls"  # type: ignore[attr-defined]
    return [encoder_contract(sound.dataset, ConstantDecoder(Posing(sound.encoder, other)))]


def vectors_scaled_to_another_length(sound: Sound) -> list[GateResult]:
    return [encoder_contract(changed(sound.dataset, sound.folder, sound.dataset.vectors * 2), ConstantDecoder(sound.encoder))]


def decoder_of_one_text(sound: Sound) -> list[GateResult]:
    return [decoder_abc(spoilt(sound.decoded.arms, "A", sound.encoder, sound.dataset))]


def loss_weight_zeroed_on_its_way(sound: Sound) -> list[GateResult]:
    sound.patch.setattr("lvm.training.gradcache.weighted", without_a_gradient("infonce"))
    trainer = Trainer(tiny(sound.dataset, "epochs=1"), sound.dataset, sound.folder, CPU)
    with pytest.raises(GateRefused, match="loss_balance"):
        trainer.run()
    return [gradient_balance(trainer.config.loss, trainer.progress.gradient_shares, LIMITS)]


def every_loss_weight_zero(sound: Sound) -> list[GateResult]:
    return [gradient_balance(LossConfig(**dict.fromkeys(LOSS_TERMS, 0.0)), sound.checkpoint.config.gradient_shares, LIMITS)]


def swapped_class_with_equal_keys(sound: Sound) -> list[GateResult]:
    sound.patch.setitem(ARCHITECTURES._entries, "lstm", Backwards)
    with pytest.raises(GateRefused, match="reload_parity"):
        load_checkpoint(sound.checkpoint.path, CPU)
    swapped = load_checkpoint(sound.checkpoint.path, CPU, tolerance=np.inf)
    assert swapped.model.state_dict().keys() == sound.checkpoint.model.state_dict().keys()
    return [reload_parity(CheckedModel(swapped, evaluation_of(sound.ref, sound.ref.targets), LIMITS))]


POISONS: dict[Callable[[Sound], list[GateResult]], set[str]] = {
    shuffled_chunk_order: {"chunk_order"},
    windows_across_documents: {"chunk_order"},
    split_by_chunk_not_document: {"split_leakage"},
    training_rows_in_the_test_split: {"split_leakage"},
    duplicated_ingestion: {"duplicates"},
    texts_that_the_encoder_cannot_read: {"readable"},
    two_chunks_under_one_key: {"chunk_order", "duplicates"},
    evaluation_rows_mispaired: {"pairing"},
    copy_last_model: {"baselines"},
    mean_vector_model: {"baselines", "moment_matching", "collapse"},
    constant_output: {"baselines", "moment_matching", "collapse"},
    output_of_another_scale: {"moment_matching"},
    loss_weight_zeroed_on_its_way: {"loss_balance"},
    every_loss_weight_zero: {"loss_balance"},
    swapped_class_with_equal_keys: {"reload_parity"},
    wrong_recipe: {"encoder_contract"},
    vectors_scaled_to_another_length: {"encoder_contract"},
    decoder_of_one_text: {"decoder_abc"},
}


def oracle(sound: Sound) -> list[GateResult]:
    """Every gate on what is right: the text as it is, the true next vectors, an honest training, the decoder of the encoder."""
    model = model_gates(sound.checkpoint, evaluation_of(sound.ref, sound.ref.targets), LIMITS)
    return [
        *data_gates(sound.dataset, LIMITS),
        *model,
        encoder_contract(sound.dataset, ConstantDecoder(sound.encoder)),
        decoder_abc(sound.decoded.arms),
    ]


def test_every_gate_passes_its_oracle(sound: Sound) -> None:
    results = oracle(sound)
    assert {result.name: result.sentence for result in results if not result.passed} == {}
    assert {result.name for result in results} == set.union(*POISONS.values()), "and each has a poison"


@pytest.mark.parametrize("poison", POISONS, ids=lambda poison: poison.__name__)
def test_poison_fails_the_gates_that_were_made_for_it(sound: Sound, poison: Callable[[Sound], list[GateResult]]) -> None:
    refused = {result.name: result for result in poison(sound) if not result.passed}
    assert POISONS[poison] <= refused.keys()
    assert all(result.reason and result.remedy for result in refused.values())
