"""Train an inverter into a folder: prepare its texts and tokenizer, resume or start the run, save the result."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from lvm.atomic_io import digest_json, write_json, write_text
from lvm.config import DecoderTrainConfig
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter.card import decoder_card
from lvm.decoding.inverter.folder import FILES, DecoderConfig, read_decoder_config, save_decoder
from lvm.decoding.inverter.holdout import training_texts
from lvm.decoding.inverter.tokens import train_tokenizer
from lvm.decoding.inverter.trainer import STATE, InverterTrainer
from lvm.errors import InputError
from lvm.training.distributed import Ranks
from lvm.training.metrics_log import Event
from lvm.training.run_folder import STATE_FOLDER, prepare_run_folder

TOKENIZER = "tokenizer.json"


VALIDATION_TEXTS = 256
"""Validation texts that are decoded after each round."""


def train_decoder(
    config: DecoderTrainConfig,
    dataset: Dataset,
    hold_out: Sequence[Dataset],
    encoder: Encoder,
    out: Path,
    device: torch.device,
    resume: bool = False,
    fresh: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    ranks: Ranks = Ranks(),
) -> DecoderConfig:
    """Train an inverter of `encoder` on `dataset` into `out`. If `resume` finds it finished, return at once.

    No text of the validation and test documents of `dataset` and `hold_out` is learned from. The inverter is
    validated on texts of the first of `hold_out`, or of `dataset`. See `prepare_run_folder` for `resume` and
    `fresh`. Raises `InputError` when the recipes differ, when `out` holds another run, or when too little text
    is left; `TrainingDiverged` when the loss is not finite.
    """
    for data in (dataset, *hold_out):
        encoder.recipe.require_same(data.manifest.recipe, f"dataset {data.path}")
    held_out = [data.manifest.digest for data in (dataset, *hold_out)]  # in order, since the first of `hold_out` validates

    def same_run(found: DecoderConfig) -> bool:
        return (found.train, found.dataset_digest, found.held_out) == (config, dataset.manifest.digest, held_out)

    finished = prepare_run_folder(out, FILES, read_decoder_config, same_run, resume, fresh, ranks)
    if finished is not None:
        return finished
    folder, texts = out / STATE_FOLDER, training_texts(dataset, hold_out)
    validation = _validation_texts((hold_out or [dataset])[0])
    tokenizer = _tokenizer(config, texts.texts, folder, ranks)
    key = digest_json([config.model_dump(), held_out, dataset.manifest.digest, ranks.world])
    trainer = InverterTrainer(config, texts, validation, encoder, tokenizer, folder, key, device, ranks, on_event)
    if resume:
        trainer.resume()
    if ranks.rank == 0:
        write_json(folder / "config.json", config.model_dump())
    trainer.run()
    if ranks.rank == 0:
        card = decoder_card(config, dataset.manifest, [d.manifest for d in hold_out], texts, trainer.metrics, trainer.step)
        digest = dataset.manifest.digest
        save_decoder(out, trainer.model, tokenizer, config, encoder.recipe, digest, held_out, trainer.metrics, card)
    ranks.wait()
    return read_decoder_config(out)


def _validation_texts(dataset: Dataset) -> list[str]:
    """A fixed random sample of the validation texts of `dataset`; `InputError` when it has none."""
    rows = dataset.rows("val")
    if not len(rows):
        raise InputError(f"split 'val' of dataset {dataset.path} is empty: give more documents (ten or more)")
    return dataset.texts(np.random.default_rng(0).permutation(rows)[:VALIDATION_TEXTS])


def _tokenizer(config: DecoderTrainConfig, texts: Sequence[str], folder: Path, ranks: Ranks) -> Tokenizer:
    """The run's tokenizer, trained by the first process. It is kept once the run has a state; before, it may be another run's."""
    file = folder / TOKENIZER
    if ranks.rank == 0 and not (folder / STATE).exists():
        write_text(file, train_tokenizer(texts, config.model.vocabulary).to_str())
    ranks.wait()
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no exception class of its own
        raise InputError(f"{file} is missing, truncated or altered ({error}): give --fresh to start over") from error
