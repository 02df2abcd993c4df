"""Judge a checkpoint on a dataset: the same steps for the command, the flow and every night."""

import numpy as np

from lvm.baselines import Baselines, fit_baselines
from lvm.checkpoint import Checkpoint
from lvm.corpus.dataset import Dataset
from lvm.errors import InputError
from lvm.evaluation import Evaluation, Reference, evaluate, reference
from lvm.windows import make_windows


def validate(
    dataset: Dataset, checkpoint: Checkpoint, split: str = "test", context_length: int | None = None, ref: Reference | None = None
) -> Evaluation:
    """Evaluate `checkpoint` on a split of `dataset` beside the baselines it was trained with, in the direction that it reads.

    `ref`, if given, is the `make_reference` of a model with the same data, context length and
    baselines: models that are compared share one. Raises what `make_reference` raises.
    """
    found = ref or make_reference(dataset, checkpoint, split, context_length)
    data = dataset.directed(checkpoint.config.train.reverse)
    return evaluate(checkpoint.model, data, split, found, checkpoint.model.mean.device)


def make_reference(
    dataset: Dataset,
    checkpoint: Checkpoint,
    split: str,
    context_length: int | None = None,
    pool_size: int | None = None,
    leave_out: np.ndarray | None = None,
) -> Reference:
    """The windows of `split` and the scores of the checkpoint's baselines on them.

    `pool_size` is the configured one by default; two sets of documents are compared at one size.
    `leave_out` are rows of a foreign dataset, numbered in the direction that the model reads, that it was trained on all the same.

    Raises `InputError` when the encoder recipes differ, when `split` would score documents that
    the model was trained on, or when another context length is asked of a foreign dataset, for
    which no baselines can be fitted.
    """
    config = checkpoint.config
    config.recipe.require_same(dataset.manifest.recipe, f"dataset {dataset.path}")
    trained_here = config.dataset_digest == dataset.manifest.digest
    if split not in ("val", "test", "all"):
        raise InputError(f"field 'split' is {split!r}; expected val, test or all")
    if split == "all" and trained_here:
        raise InputError("split 'all' holds the documents that this model was trained on: give --split test, or other documents")
    dataset.require_finite()
    dataset = dataset.directed(config.train.reverse)
    device = checkpoint.model.mean.device
    length = context_length or config.train.context_length
    windows = make_windows(dataset, split, length, pool_size or config.train.eval_windows, device, leave_out)
    return reference(dataset, windows, _baselines(dataset, checkpoint, length, trained_here), device)


def _baselines(dataset: Dataset, checkpoint: Checkpoint, length: int, trained_here: bool) -> Baselines:
    if length == checkpoint.baselines.context_length:
        return checkpoint.baselines
    if not trained_here:
        raise InputError(
            f"field 'context_length': {length} needs baselines fitted on the model's own training data; "
            f"this model carries those for {checkpoint.baselines.context_length}"
        )
    return fit_baselines(dataset, length, checkpoint.config.train.eval_windows, checkpoint.model.mean.device)
