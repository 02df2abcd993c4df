"""What several gates of the data need: unit vectors, and the names of the documents that rows are in."""

import numpy as np
import torch

from lvm.data.dataset import Dataset

CPU = torch.device("cpu")


MORE_DOCUMENTS = "give more documents (ten or more)"


def unit_rows(dataset: Dataset, start: int, stop: int) -> np.ndarray:
    """Unit vectors of a range of rows, [rows, D]; zero and non-finite vectors become zero."""
    vectors = np.nan_to_num(np.asarray(dataset.vectors[start:stop]), nan=0.0, posinf=0.0, neginf=0.0)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def most_often(dataset: Dataset, rows: np.ndarray) -> str:
    """The three documents with most of `rows`, with their counts."""
    docs, counts = np.unique(dataset.row_doc[rows], return_counts=True)
    return ", ".join(f"{dataset.doc_ids[docs[i]]} ({counts[i]})" for i in np.argsort(-counts, kind="stable")[:3])
