"""A decoder's training starts, resumes and ends as asked, and refuses what it cannot learn from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from lvm.config import DecoderTrainConfig
from lvm.data.dataset import Dataset
from lvm.data.unseen import normalised_text
from lvm.decoding.inverter import train as module
from lvm.decoding.inverter import trainer as training
from lvm.decoding.inverter.folder import DecoderConfig, load_decoder_folder, read_decoder_config
from lvm.decoding.inverter.holdout import TrainingTexts
from lvm.decoding.inverter.train import train_decoder
from lvm.decoding.inverter.trainer import InverterTrainer
from lvm.errors import InputError
from lvm.training.distributed import Ranks
from lvm.training.metrics_log import Event
from tests.support.tiny_decoder import CPU, SHORT, BagEncoder, Killed, tiny


def test_neither_tokenizer_nor_network_sees_a_held_out_text(
    dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    validation: list[str] = []

    class Noting(InverterTrainer):
        def __init__(self, config: DecoderTrainConfig, texts: TrainingTexts, held: list[str], *rest: Any) -> None:
            seen.extend(texts.texts)
            validation.extend(held)
            raise Killed

    make = module.train_tokenizer
    quick.setattr(module, "InverterTrainer", Noting)
    quick.setattr(module, "train_tokenizer", lambda texts, vocabulary: (seen.extend(texts), make(texts, vocabulary))[1])
    splits = dataset.doc_splits.copy()
    splits[dataset.docs("train")[:5]] = "val"
    other = replace(dataset, doc_splits=splits)
    with pytest.raises(Killed):
        train_decoder(tiny(), dataset, [other], bags, tmp_path / "out", CPU)
    held = {normalised_text(text) for data in (dataset, other) for split in ("val", "test") for text in data.texts(data.rows(split))}
    assert len(seen) > 2_000 and not held & {normalised_text(text) for text in seen}
    assert len(validation) == 8 and set(validation) <= set(other.texts(other.rows("val"))), "validated on the first of hold_out"


# Starting and resuming; tests/lvm/training/test_run_folder.py has what predictors and decoders share


def test_a_finished_run_is_resumed_at_once_and_left_unchanged(whole: Path, dataset: Dataset, bags: BagEncoder) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*")}

    def never(event: Event) -> None:
        raise AssertionError("trained again")

    found = train_decoder(tiny(*SHORT), dataset, [], bags, whole, CPU, resume=True, on_event=never)
    assert found == read_decoder_config(whole)
    assert {file: file.stat().st_mtime_ns for file in whole.rglob("*")} == before


def test_a_finished_run_is_neither_overwritten_nor_resumed_as_another(whole: Path, dataset: Dataset, bags: BagEncoder) -> None:
    def again(*settings: str, hold_out: tuple[Dataset, ...] = (), resume: bool = True) -> DecoderConfig:
        return train_decoder(tiny(*SHORT, *settings), dataset, hold_out, bags, whole, CPU, resume)

    with pytest.raises(InputError, match="holds a run already"):
        again(resume=False)
    with pytest.raises(InputError, match="run with another configuration or dataset"):
        again("seed=1")
    with pytest.raises(InputError, match="run with another configuration or dataset"):
        again(hold_out=(dataset,))


@pytest.fixture()
def half(dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch) -> Path:
    """A run of which one round is done."""

    def die(event: Event) -> None:
        if event["step"] > 2:
            raise Killed

    quick.setattr(training, "LOG_EVERY", 1)
    with pytest.raises(Killed):
        train_decoder(tiny(*SHORT), dataset, [], bags, tmp_path / "half", CPU, on_event=die)
    return tmp_path / "half"


@pytest.fixture()
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_an_unfinished_run_is_resumed_as_what_it_was_or_not_at_all(half: Path, dataset: Dataset, bags: BagEncoder, group: None) -> None:
    assert not (half / "config.json").exists(), "no later stage takes it for a decoder"
    other = "trained with another configuration, dataset or number of processes: give --fresh or another --out"
    with pytest.raises(InputError, match=other):
        train_decoder(tiny(*SHORT, "learning_rate=0.001"), dataset, [], bags, half, CPU, resume=True)
    with pytest.raises(InputError, match=other):
        train_decoder(tiny(*SHORT), dataset, [dataset], bags, half, CPU, resume=True)
    with pytest.raises(InputError, match=other):
        train_decoder(tiny(*SHORT), dataset, [], bags, half, CPU, resume=True, ranks=Ranks(0, 2))
    state = half / "training" / "state.safetensors"
    whole = state.read_bytes()
    for content in (whole[:-100], b"", whole[:2_000]):
        state.write_bytes(content)
        with pytest.raises(InputError, match=r"state\.safetensors is truncated or altered .*give --fresh"):
            train_decoder(tiny(*SHORT), dataset, [], bags, half, CPU, resume=True)
    state.write_bytes(whole)
    (half / "training" / "tokenizer.json").write_text('{"half": ')
    with pytest.raises(InputError, match=r"tokenizer\.json is missing, truncated or altered .*give --fresh"):
        train_decoder(tiny(*SHORT), dataset, [], bags, half, CPU, resume=True)


def test_a_run_killed_in_its_first_round_leaves_nothing_to_another(
    dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch
) -> None:
    def die(event: Event) -> None:
        raise Killed

    with pytest.raises(Killed):
        train_decoder(tiny(*SHORT), dataset, [], bags, tmp_path / "out", CPU, on_event=die)
    config = tiny(*SHORT, "model.vocabulary=420", "rounds=1")
    train_decoder(config, dataset, [], bags, tmp_path / "out", CPU, resume=True)
    assert load_decoder_folder(tmp_path / "out", CPU).tokenizer.get_vocab_size() == 420


# What is refused


def test_data_that_cannot_be_learned_from_is_refused(dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch) -> None:
    def attempt(*settings: str, data: Dataset = dataset, by: Any = bags) -> None:
        train_decoder(tiny(*settings), data, [], by, tmp_path / "out", CPU, fresh=True)

    with pytest.raises(InputError, match=r"field 'decoder\.texts' is 64"):
        attempt("batch=65")
    with pytest.raises(InputError, match=r"field 'decoder\.model\.vocabulary' is 65000, but the texts yield"):
        attempt("model.vocabulary=65000")
    without_validation = replace(dataset, doc_splits=np.where(dataset.doc_splits == "val", "train", dataset.doc_splits))
    with pytest.raises(InputError, match=r"split 'val' of dataset .* is empty: give more documents"):
        attempt(data=without_validation)
    with pytest.raises(InputError, match=r"dataset .* pooling: cls against mean"):
        attempt(by=SimpleNamespace(recipe=bags.recipe.model_copy(update={"pooling": "cls"})))
