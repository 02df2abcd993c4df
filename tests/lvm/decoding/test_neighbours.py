"""The nearest real chunk is the nearest of those that are not hidden, by cosine, with its true source."""

import numpy as np
import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.decoding import neighbours as module
from lvm.decoding.neighbours import ChunkLibrary
from lvm.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize("block", [64, 8_192])
def test_the_nearest_chunk_is_that_of_all_pairs(block: int, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    library = ChunkLibrary(dataset, "train", CPU)
    queries = np.random.default_rng(0).normal(size=(20, dataset.dim)).astype(np.float32)
    hidden = np.random.default_rng(1).random((20, len(library.rows))) < 0.5
    cosine = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ dataset.vectors[library.rows].T
    cosine[hidden] = -2
    found = library.nearest(queries * 7, hidden)  # the scale of a query does not matter
    for i, row in enumerate(library.rows[cosine.argmax(1)]):
        doc = dataset.row_doc[row]
        assert (found[i].text, found[i].doc_id) == (dataset.texts([row])[0], dataset.doc_ids[doc])
        assert (found[i].chunk_index, found[i].source) == (dataset.chunk_index[row], "addresses")
        assert found[i].cosine == pytest.approx(cosine[i].max(), abs=1e-5)
    assert {"train"} == {str(dataset.doc_splits[dataset.doc_ids.index(chunk.doc_id)]) for chunk in found}


def test_chunks_are_found_by_their_text(dataset: Dataset) -> None:
    library = ChunkLibrary(dataset, "train", CPU)
    texts = dataset.texts(library.rows[[3, 100]])
    assert set(dataset.texts(library.rows[library.holding(texts)])) == set(texts)
    assert not library.holding(["no such text"]).any()


@pytest.mark.parametrize("reverse", [False, True])
def test_embeddings_of_chunks_are_the_stored_ones(dataset: Dataset, reverse: bool) -> None:
    directed = dataset.directed(reverse)
    library = ChunkLibrary(directed, "all", CPU)
    rows = np.array([0, 7, directed.n_rows - 1])
    found = library.nearest(np.array(directed.vectors[rows]), np.zeros((3, directed.n_rows), bool))
    assert np.array_equal(library.embeddings(found), directed.vectors[rows])
    assert library.embeddings([]).shape == (0, dataset.dim)


def test_a_library_that_is_hidden_altogether_is_refused(dataset: Dataset) -> None:
    library = ChunkLibrary(dataset, "val", CPU)
    with pytest.raises(InputError, match="has no chunk that is not in the context already"):
        library.nearest(np.array(dataset.vectors[:1]), np.ones((1, len(library.rows)), bool))
