"""A model is evaluated on documents it has not seen, by vectors of its own encoder, beside its own baselines."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.data.windows import make_windows
from lvm.errors import InputError
from lvm.evaluation.evaluate import evaluate_checkpoint, make_reference, score_baselines
from lvm.evaluation.looks import of_model, read_looks
from lvm.models.baselines import fit_baselines
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from tests.support.trainings import trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset) -> Checkpoint:
    """A trained model with baselines for a context of 3."""
    return load_checkpoint(trained(dataset), CPU)


@pytest.fixture()
def foreign(dataset: Dataset, tmp_path: Path) -> Dataset:
    """The same text as a dataset that the model was not trained on, as far as anyone can tell."""
    return replace(dataset, path=tmp_path / "foreign", manifest=dataset.manifest.model_copy(update={"key": "foreign"}))


@pytest.mark.parametrize("field", ["weights_sha256", "pooling", "normalize", "max_tokens"])
def test_vectors_of_another_recipe_are_refused_before_any_work(dataset: Dataset, checkpoint: Checkpoint, field: str) -> None:
    other = {"weights_sha256": "0" * 64, "pooling": "cls", "normalize": not dataset.manifest.recipe.normalize, "max_tokens": 99}[field]
    recipe = dataset.manifest.recipe.model_copy(update={field: other})
    # There is nothing here to work on: whatever came before the refusal would end in another error.
    empty = replace(
        dataset, path=Path("another"), manifest=dataset.manifest.model_copy(update={"recipe": recipe}), table=None, vectors=None
    )
    for split in ("val", "test", "all"):
        with pytest.raises(InputError, match=rf"dataset another: encoder recipe minilm .* is not .*{field}: .* against {other}") as caught:
            evaluate_checkpoint(empty, checkpoint, split)
        assert "Extract the documents again" in str(caught.value)


def test_recipe_under_another_name_is_the_same_recipe(dataset: Dataset, checkpoint: Checkpoint) -> None:
    renamed = dataset.manifest.recipe.model_copy(update={"name": "sentence-transformers:somewhere"})
    found = evaluate_checkpoint(replace(dataset, manifest=dataset.manifest.model_copy(update={"recipe": renamed})), checkpoint, "val")
    assert found.values() == evaluate_checkpoint(dataset, checkpoint, "val").values()


def test_all_documents_of_the_training_dataset_are_refused(dataset: Dataset, checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match="split 'all' includes the documents that this model was trained on: give --split test"):
        evaluate_checkpoint(dataset, checkpoint, "all")


@pytest.mark.parametrize("split", ["train", "dev", ""])
def test_unknown_split_is_refused_by_name(dataset: Dataset, foreign: Dataset, checkpoint: Checkpoint, split: str) -> None:
    for data in (dataset, foreign):
        with pytest.raises(InputError, match=f"field 'split' is '{split}'; expected val, test or all"):
            evaluate_checkpoint(data, checkpoint, split)


def test_all_documents_of_another_dataset_are_scored(foreign: Dataset, checkpoint: Checkpoint) -> None:
    train = checkpoint.config.train.model_copy(update={"eval_windows": 1000})
    found = evaluate_checkpoint(foreign, replace(checkpoint, config=checkpoint.config.model_copy(update={"train": train})), "all")
    assert found.split == "all" and len(found.windows.pool) == 1000
    assert set(found.windows.docs) == set(range(len(foreign.doc_ids)))
    assert found.interval("cosine").low is not None


@pytest.mark.parametrize("split", ["val", "test"])
def test_only_documents_of_the_split_are_scored(dataset: Dataset, checkpoint: Checkpoint, split: str) -> None:
    found = evaluate_checkpoint(dataset, checkpoint, split)
    assert found.split == split
    assert set(found.windows.docs) == set(dataset.docs(split))
    assert set(dataset.row_doc[found.windows.pool]) <= set(dataset.docs(split))


def test_any_dataset_is_evaluated_against_the_baselines_that_the_model_brings(foreign: Dataset, checkpoint: Checkpoint) -> None:
    other = replace(checkpoint.baselines, mean=torch.full_like(checkpoint.baselines.mean, 0.01))
    found, changed = (
        evaluate_checkpoint(foreign, checkpoint, "val"),
        evaluate_checkpoint(foreign, replace(checkpoint, baselines=other), "val"),
    )
    expected = score_baselines(foreign, make_windows(foreign, "val", 3, 10_000, CPU), checkpoint.baselines, CPU)
    assert set(found.baselines) == set(expected.scores)
    for name, scores in expected.scores.items():
        assert np.array_equal(found.baselines[name].cosine, scores.cosine) and np.array_equal(found.baselines[name].ranks, scores.ranks)
    assert not np.array_equal(found.baselines["mean_vector"].cosine, changed.baselines["mean_vector"].cosine)


def test_another_context_length_is_evaluated_against_baselines_fitted_for_it(
    dataset: Dataset, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    splits = dataset.doc_splits.copy()
    splits[dataset.docs("train")[8:]] = "unused"  # fewer documents are fitted sooner
    small = replace(dataset, doc_splits=splits, path=tmp_path / "small")
    found = evaluate_checkpoint(small, checkpoint, "val", context_length=2)
    assert found.windows.context_length == 2
    fitted = fit_baselines(small, 2, 10_000, CPU)
    assert fitted.context_length == 2
    expected = score_baselines(small, found.windows, fitted, CPU).scores
    assert set(found.baselines) == set(expected)
    assert all(np.array_equal(found.baselines[name].cosine, expected[name].cosine) for name in expected)
    own = evaluate_checkpoint(small, checkpoint, "val")
    assert found.windows.pool_hash == own.windows.pool_hash, "every context length answers among the same chunks"
    assert not np.array_equal(found.model.cosine[-50:], own.model.cosine[-50:])


def test_looks_at_test_documents_are_counted_and_others_are_not(dataset: Dataset, checkpoint: Checkpoint, tmp_path: Path) -> None:
    data = replace(dataset, path=tmp_path / "data" / "dataset")
    ref = make_reference(data, checkpoint, "test")
    evaluate_checkpoint(data, checkpoint, "val")
    assert read_looks(data).configurations == {}
    for _ in range(2):
        evaluate_checkpoint(data, checkpoint, "test", ref=ref)
    looks = read_looks(data)
    assert looks.counts(of_model(checkpoint.config, 3)) and [look.times for look in looks.configurations.values()] == [2]


def test_models_that_share_a_reference_are_evaluated_as_if_each_had_its_own(dataset: Dataset, checkpoint: Checkpoint) -> None:
    shared = make_reference(dataset, checkpoint, "val")
    assert (
        evaluate_checkpoint(dataset, checkpoint, "val", ref=shared).summary() == evaluate_checkpoint(dataset, checkpoint, "val").summary()
    )


def test_another_context_length_on_another_dataset_is_refused(foreign: Dataset, checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match=r"field 'context_length': 5 needs baselines .* contains those for 3"):
        evaluate_checkpoint(foreign, checkpoint, "val", context_length=5)


def test_the_same_validation_twice_gives_the_same_numbers(dataset: Dataset, checkpoint: Checkpoint) -> None:
    first, second = evaluate_checkpoint(dataset, checkpoint, "val"), evaluate_checkpoint(dataset, checkpoint, "val")
    assert first.summary() == second.summary()
    assert np.array_equal(first.model.cosine, second.model.cosine) and np.array_equal(first.shuffled_cosine, second.shuffled_cosine)
