"""The results of `lvm explain`: what a model uses of its context, and how much it knows about the next chunk."""

from dataclasses import asdict
from typing import Any

import torch

from lvm.data.dataset import Dataset
from lvm.data.windows import Windows, contexts, make_windows, unit
from lvm.errors import InputError
from lvm.evaluation.ablations import WINDOWS, ablations
from lvm.evaluation.evaluate import SKILLS, Reference, evaluate_checkpoint, make_reference
from lvm.evaluation.information import Information, candidate_count, contrast, information, negatives, similarities
from lvm.models import Predictor
from lvm.models.baselines import CENTRED_EWMA, STRONGEST, Baselines, fit_baselines
from lvm.models.checkpoint import Checkpoint

DISTRACTORS = (1, 9)
"""Numbers of distractors from the same document; chance is a half and a tenth."""


WHOLE, LAST = "whole context", "last chunk"


def explain(dataset: Dataset, checkpoint: Checkpoint, split: str = "test") -> dict[str, Any]:
    """Skill, ablations, contrastive accuracy and information, with intervals over documents, as JSON values.

    Skill is of every window of `split`, the rest of at most 2,000. Raises `InputError` when `dataset` is not the one that the
    model was trained on (temperatures are fitted on its validation documents, baselines on its training documents), when a
    split has only one document or the context only one chunk, and what `make_reference` raises.
    """
    train, device = checkpoint.config.train, checkpoint.model.mean.device
    if checkpoint.config.dataset_digest != dataset.manifest.digest:
        raise InputError(
            f"dataset {dataset.path} is not the one that {checkpoint.path} was trained on, "
            "whose validation documents are needed: give that one"
        )
    ref = make_reference(dataset, checkpoint, split)
    data = dataset.directed(train.reverse)
    windows = ref.windows.at_most(WINDOWS)
    drops = ablations(checkpoint.model, checkpoint.baselines, data, windows, device)
    one = fit_baselines(data, 1, train.eval_windows, device)
    predicted = _predictions(checkpoint.model, checkpoint.baselines, one, data, windows)
    compared = {name: predicted[f"{WHOLE}: {name}"] for name in ("model", CENTRED_EWMA)} | {"copy_last": predicted[f"{LAST}: copy_last"]}
    contrasts = {str(count): contrast(compared, data, windows, count) for count in DISTRACTORS}
    return {
        "split": split,
        "arch": train.model.arch,
        "model": train.model.name,
        "context_length": train.context_length,
        "windows": len(windows.answer),
        "documents": len(set(windows.docs)),
        **skill(dataset, checkpoint, split, ref),
        "ablations": {name: {metric: asdict(drop) for metric, drop in each.items()} for name, each in drops.items()},
        "rivals": STRONGEST,
        "contrast": {count: asdict(each) if each else None for count, each in contrasts.items()},
        "information": asdict(_information(checkpoint, one, data, windows, predicted)),
    }


def skill(dataset: Dataset, checkpoint: Checkpoint, split: str, ref: Reference | None = None) -> dict[str, Any]:
    """Skill over the best baseline in the direction that the model reads, as JSON values."""
    found = evaluate_checkpoint(dataset, checkpoint, split, ref=ref)
    return {
        "reverse": checkpoint.config.train.reverse,
        "skill": {metric: asdict(found.skill(metric)) for metric in SKILLS},
        "best_baseline": {metric: found.best_baseline(metric) for metric in SKILLS},
    }


def require_mirror(forward: Checkpoint, backward: Checkpoint) -> None:
    """Raise `InputError` unless both were trained alike on one dataset, `backward` on documents read backwards."""
    ours, theirs = forward.config, backward.config
    forward.config.require_forward(forward.path)
    if not theirs.train.reverse:
        raise InputError(f"{backward.path}: field 'train.reverse' is false: train it with --set reverse=true")
    if ours.dataset_digest != theirs.dataset_digest:
        raise InputError(f"{backward.path}: field 'dataset_digest' is not that of {forward.path}: train both on one dataset")
    same = theirs.train.model_copy(update={"reverse": False})
    other = [name for name in type(same).model_fields if getattr(same, name) != getattr(ours.train, name)]
    if other:
        raise InputError(f"{backward.path}: field(s) {', '.join(other)} of 'train' are not those of {forward.path}: train both alike")


@torch.inference_mode()
def _predictions(model: Predictor, baselines: Baselines, one: Baselines, dataset: Dataset, windows: Windows) -> dict[str, torch.Tensor]:
    """Retrieval vectors [N, D] of the model and of baselines, from the whole context and from its last chunk only.

    `one` are the baselines fitted for a context of one chunk.
    """
    model.eval()
    parts: dict[str, list[torch.Tensor]] = {}
    baselines, one = baselines.to(model.mean.device), one.to(model.mean.device)
    for context in contexts(dataset.vectors, windows.targets, windows.context_length, model.mean.device):
        last, fitted, short = context[:, -1:], baselines.predict(context), one.predict(context[:, -1:])
        found = {f"{WHOLE}: model": model(context, return_both=False), f"{LAST}: model": model(last, return_both=False)}
        found |= {f"{WHOLE}: {name}": fitted[name] for name in (CENTRED_EWMA, STRONGEST["recall_at_5"])}
        # The centred mean of one chunk is the centred chunk.
        found |= {f"{LAST}: {name}": short[name] for name in ("copy_last", CENTRED_EWMA, STRONGEST["recall_at_5"])}
        for name, vectors in found.items():
            parts.setdefault(name, []).append(vectors)
    return {name: torch.cat(each) for name, each in parts.items()}


def _information(
    checkpoint: Checkpoint, one: Baselines, dataset: Dataset, windows: Windows, predicted: dict[str, torch.Tensor]
) -> Information:
    """Information of all critics, fitted on validation documents; `predicted` are the vectors for `windows`."""
    train, device = checkpoint.config.train, checkpoint.model.mean.device
    val = make_windows(dataset, "val", train.context_length, train.eval_windows, device).at_most(WINDOWS)
    count = candidate_count((dataset, val), (dataset, windows))
    fitted = _predictions(checkpoint.model, checkpoint.baselines, one, dataset, val)
    cosines = []
    for part, vectors in ((val, fitted), (windows, predicted)):
        pool, others = unit(dataset.vectors[part.pool], device), negatives(dataset, part, count)
        cosines.append({name: similarities(each, pool, part, others) for name, each in vectors.items()})
    return information(cosines[0], cosines[1], [name for name in predicted if name.startswith(LAST)], windows.docs)
