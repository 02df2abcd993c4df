"""Documents read backwards are the same documents: every context is what comes later, and nothing is mixed up with forward reading."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lvm.config import SamplerConfig
from lvm.data.dataset import Dataset
from lvm.data.manifest import SPLITS
from lvm.data.statistics import encoder_statistics
from lvm.data.windows import contexts, leaked_rows, make_windows
from lvm.models.baselines import fit_baselines
from lvm.training.batches import BatchReader
from lvm.training.sampler import DiverseBatchSampler

CPU = torch.device("cpu")
LENGTH = 3


def few_documents(dataset: Dataset, path: Path) -> Dataset:
    """The first documents of a dataset, in few dimensions: baselines are fitted to them in a second."""
    docs, dim = 8, 8
    rows = dataset.starts[docs]
    recipe = dataset.manifest.recipe.model_copy(update={"dim": dim})
    return replace(
        dataset,
        path=path,
        manifest=dataset.manifest.model_copy(update={"recipe": recipe}),
        table=dataset.table.slice(0, rows),
        vectors=np.ascontiguousarray(dataset.vectors[:rows, :dim]),
        doc_ids=dataset.doc_ids[:docs],
        starts=dataset.starts[: docs + 1],
        doc_splits=np.array(["train", "val"] * (docs // 2), object),
    )


def test_contexts_of_real_text_are_the_later_chunks(dataset: Dataset) -> None:
    turned = dataset.directed(True)
    windows = make_windows(turned, "val", LENGTH, 10_000, CPU)
    (found,) = contexts(turned.vectors, windows.targets, LENGTH, CPU, batch=10_000)
    for i in range(0, len(windows.targets), 97):
        row = windows.targets[i]
        doc_id, position = turned.doc_ids[windows.docs[i]], turned.chunk_index[row]
        forward = dataset.starts[dataset.doc_ids.index(doc_id)] + position
        assert turned.texts([row]) == dataset.texts([forward]), "the target is the chunk that its key names"
        later = forward + np.array([3, 2, 1])
        assert turned.texts(row + np.arange(-LENGTH, 0)) == dataset.texts(later)
        assert np.array_equal(found[i].numpy(), dataset.vectors[later])
        assert (dataset.row_doc[later] == dataset.row_doc[forward]).all()


def test_training_batches_predict_the_chunk_before(dataset: Dataset) -> None:
    turned = dataset.directed(True)
    sampler = DiverseBatchSampler(turned.starts, turned.docs("train"), SamplerConfig(stretches=4, length=8), 0)
    batch = next(sampler.epoch(0))
    read, written = turned.chunk_index[batch.rows[:, :-1]][batch.valid], turned.chunk_index[batch.rows[:, 1:]][batch.valid]
    assert (written == read - 1).all()
    vectors = BatchReader(turned, CPU)(batch)
    assert np.array_equal(vectors.context.numpy(), dataset.vectors[dataset.n_rows - 1 - batch.rows[:, :-1]])


def test_documents_splits_and_vectors_stay_together(dataset: Dataset) -> None:
    turned = dataset.directed(True)
    assert turned.n_rows == dataset.n_rows and turned.starts[0] == 0 and turned.starts[-1] == dataset.n_rows
    for split in SPLITS:
        names = {turned.doc_ids[doc] for doc in turned.docs(split)}
        assert names == {dataset.doc_ids[doc] for doc in dataset.docs(split)}
        rows, forward = turned.rows(split), dataset.rows(split)
        assert sorted(turned.texts(rows)) == sorted(dataset.texts(forward))
    ids = np.array(turned.table.column("doc_id").to_pylist())
    assert np.array_equal(np.array(turned.doc_ids)[turned.row_doc], ids)
    lengths = np.diff(turned.starts)[turned.row_doc]
    assert np.array_equal(turned.chunk_index, lengths - 1 - (np.arange(turned.n_rows) - turned.starts[turned.row_doc]))


def test_turning_twice_gives_the_same_dataset_and_copies_no_vector(dataset: Dataset) -> None:
    turned = dataset.directed(True)
    again = turned.directed(False)
    assert again.doc_ids == dataset.doc_ids and np.array_equal(again.starts, dataset.starts) and again.reverse is False
    assert again.table.equals(dataset.table) and np.array_equal(again.vectors, dataset.vectors)
    assert np.shares_memory(turned.vectors, dataset.vectors)
    assert dataset.directed(False) is dataset and turned.directed(True) is turned and dataset.directed(True) is turned


def ridge(dataset: Dataset) -> torch.Tensor:
    """The coefficients of ridge regression, fitted or read from beside the dataset."""
    return fit_baselines(dataset, LENGTH, 300, CPU).parameters["ridge"]["coefficients"]


def test_what_is_derived_from_each_direction_has_a_name_of_its_own(dataset: Dataset, tmp_path: Path) -> None:
    turned = dataset.directed(True)
    assert turned.derived("x.npy") != dataset.derived("x.npy") and turned.derived("x.npy").parent == dataset.derived("x.npy").parent
    small = few_documents(dataset, tmp_path)
    forward, backward = ridge(small), ridge(small.directed(True))
    assert not torch.equal(forward, backward)
    assert torch.equal(ridge(small.directed(True)), backward) and torch.equal(ridge(small), forward), "read back"


def test_the_same_chunks_leak_and_the_encoder_has_the_same_moments(dataset: Dataset) -> None:
    turned = dataset.directed(True)
    for split in ("val", "test"):
        assert set(dataset.n_rows - 1 - leaked_rows(turned, split, CPU)) == set(leaked_rows(dataset, split, CPU))
    forward, backward = (encoder_statistics(data, CPU) for data in (dataset, turned))
    torch.testing.assert_close(forward.std, backward.std)
    turned.require_finite()
