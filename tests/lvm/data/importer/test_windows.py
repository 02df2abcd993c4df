"""Overlapping windows become the documents that they were cut from; what does not fit together is left out by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvm.data.importer import windows as module
from lvm.data.importer.arrays import Archive
from lvm.data.importer.block import Problem
from lvm.data.importer.windows import holds_windows, window_blocks
from lvm.errors import InputError
from tests.support.own_vectors import DIM, vectors, windows


def read(path):
    """doc_id -> its chunks in order, and the documents with a problem."""
    chunks: dict[str, list[np.ndarray]] = {}
    torn = set()
    for block in window_blocks(Archive(path), DIM):
        for doc_id, index, vector, problem in zip(
            block.doc_ids.to_pylist(), block.chunk_index.to_pylist(), block.vectors, block.problems, strict=True
        ):
            own = chunks.setdefault(doc_id, [])
            assert index == len(own)
            own.append(vector)
            torn |= {doc_id} if problem == Problem.TORN_WINDOW else set()
    return {doc_id: np.array(own) for doc_id, own in chunks.items()}, torn


@given(
    lengths=st.lists(st.integers(4, 12), min_size=1, max_size=4),
    stride=st.integers(1, 3),
    block_rows=st.integers(1, 9),
    mixed=st.randoms(use_true_random=False),
)
def test_chunks_of_overlapping_windows_are_the_document_whatever_the_stride_and_however_documents_are_mixed(
    lengths, stride, block_rows, mixed, tmp_path_factory
):
    lengths = [4 + (length - 4) // stride * stride for length in lengths]  # so that the last window ends where the document does
    own = {f"d{i}": vectors(length, seed=i) for i, length in enumerate(lengths)}
    counts = [(length - 4) // stride + 1 for length in lengths]
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    owners = [doc for doc, count in enumerate(counts) for _ in range(count)]
    mixed.shuffle(owners)
    left = {doc: iter(range(starts[doc], starts[doc] + counts[doc])) for doc in range(len(counts))}
    path = windows(tmp_path_factory.mktemp("w") / "old.npz", own, 3, stride, [next(left[doc]) for doc in owners])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ROWS", block_rows)
        found, torn = read(path)
    assert torn == set()
    assert found.keys() == own.keys()
    for doc_id, chunks in found.items():
        np.testing.assert_array_equal(chunks, own[doc_id])


def test_zeros_before_the_first_chunk_are_padding(tmp_path):
    own = vectors(5)
    padded = {"a": np.concatenate([np.zeros((3, DIM), np.float32), own])}
    found, torn = read(windows(tmp_path / "old.npz", padded, 3))
    np.testing.assert_array_equal(found["a"], own)
    assert not torn


def test_windows_that_disagree_are_missing_or_are_out_of_order_mark_their_document(tmp_path):
    own = {"whole": vectors(8, seed=1), "shuffled": vectors(8, seed=2)}
    assert read(windows(tmp_path / "order.npz", own, 2, order=[0, 1, 2, 3, 4, 5, 6, 11, 7, 8, 9, 10]))[1] == {"shuffled"}
    path = windows(tmp_path / "old.npz", {"a": vectors(6)}, 2)
    arrays = dict(np.load(path))
    arrays["context_sequences"][2, 0, 0] += 1
    np.savez(path, **arrays)
    assert read(path)[1] == {"a"}


def test_float16_and_compressed_archives_are_read(tmp_path):
    own = {"a": vectors(6)}
    arrays = np.load(windows(tmp_path / "old.npz", own, 2))
    halves = {name: arrays[name].astype(np.float16) for name in ("context_sequences", "target_vectors")}
    np.savez_compressed(tmp_path / "small.npz", doc_ids=np.array([7] * 4), **halves)
    found, torn = read(tmp_path / "small.npz")
    np.testing.assert_array_equal(found["7"], own["a"])
    assert not torn


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"doc_ids": None}, "has context_sequences, but no array 'doc_ids'; there are context_sequences, target_vectors"),
        ({"target_vectors": np.zeros((4, 3), np.float32)}, r"target_vectors of \(4, 3\).*expected \[N, T, 4\], \[N, 4\] and \[N\]"),
        ({"doc_ids": np.array(["a", None, "b", "b"], object)}, "array 'doc_ids': it holds pickled objects, which are not loaded"),
        ({"context_sequences": np.zeros((4, 2, 4), np.int8)}, "array 'context_sequences' is of type int8: give float16"),
        ({"context_sequences": np.zeros((4, 2, 4), object)}, "array 'context_sequences'.* pickled objects"),
        ({"context_sequences": np.asfortranarray(np.ones((4, 2, 4), np.float32))}, "is stored by columns"),
    ],
)
def test_archives_of_another_form_are_refused(change, sentence, tmp_path):
    path = windows(tmp_path / "old.npz", {"a": vectors(6)}, 2)
    arrays = dict(np.load(path)) | change
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    archive = Archive(path)
    assert holds_windows(archive)
    with pytest.raises(InputError, match=sentence):
        list(window_blocks(archive, DIM))


def test_a_damaged_archive_is_refused(tmp_path):
    path = windows(tmp_path / "old.npz", {"a": vectors(60)}, 2)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match=r"old.npz is not a complete .npz file"):
        Archive(path)
