"""Gate: the encoder can read the chunks."""

import unicodedata

import numpy as np
import pyarrow.compute as pc
import torch

from lvm.config import GATES, GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.readable import sample_of, script_of
from lvm.gates.data.rows import CPU, most_often, unit_rows
from lvm.gates.result import GateResult, gate_result

DIRECTIONS = 16
"""Random directions on which vectors are compared. Vectors that agree on all of them are equal."""

GRID = 1e-3
"""Vectors that differ by less on a direction may count as equal there: computing a vector in another batch changes it by less."""

LONGEST_TOKEN = 30
"""Characters per token above which a text is mostly unknown: no tokenizer has pieces for words that long."""


@GATES.register("readable", stage="data", nightly=True)
def readable(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """The encoder tells texts apart: few chunks have the vector of another text, and few are mostly unknown tokens.

    A tokenizer gives one token to every word that it has no pieces for, so that such texts get equal vectors, and long ones few tokens.
    Texts that differ in case, accents or white space alone count as equal: some encoders ignore these. Fails when more than
    `unreadable_chunks` of the chunks are such.
    """
    confused, unknown = confused_rows(dataset), mostly_unknown(dataset)
    found = np.union1d(confused, unknown)
    share = len(found) / dataset.n_rows
    reason = f"{len(confused)} chunks have the vector of another text, {len(unknown)} are mostly unknown tokens"
    failed = share > limits.unreadable_chunks
    if failed:
        texts = dataset.texts(found[:200])
        reason += f": {share:.1%} of the chunks, most in {most_often(dataset, found)}, as {sample_of(texts[0])}"
        reason += f". {dataset.manifest.recipe.name} cannot read them"
    remedy = f"extract with an encoder that knows {script_of(texts)}, such as a multilingual one" if failed else ""
    return gate_result("readable", share, limits.unreadable_chunks, failed, reason, remedy)


def mostly_unknown(dataset: Dataset) -> np.ndarray:
    """Rows without a token, or with far fewer tokens than their characters need: int64."""
    lengths, characters = dataset.table.column("n_tokens"), pc.utf8_length(dataset.table.column("text"))
    return np.flatnonzero(pc.greater(characters, pc.multiply(lengths.cast("int32"), LONGEST_TOKEN)).fill_null(False).to_numpy())


def confused_rows(dataset: Dataset) -> np.ndarray:
    """Rows whose vector is also that of another text, in order: int64. Zero and non-finite vectors are left to `duplicates`."""
    if not dataset.has_texts:
        return np.zeros(0, np.int64)
    vectors, usable = _codes(dataset)
    _, group, sizes = np.unique(vectors, return_inverse=True, return_counts=True)
    texts = dataset.text_codes
    first = np.zeros(len(sizes), texts.dtype)
    first[group] = texts
    unequal = np.zeros(len(sizes), bool)
    unequal[group[texts != first[group]]] = True
    suspects = np.flatnonzero(unequal[group] & usable)  # of these groups the texts are compared in full
    written = np.unique([_plain(text) for text in dataset.texts(suspects)], return_inverse=True)[1]
    lowest, highest = np.full(len(sizes), len(written)), np.full(len(sizes), -1)
    np.minimum.at(lowest, group[suspects], written)
    np.maximum.at(highest, group[suspects], written)
    return suspects[lowest[group[suspects]] < highest[group[suspects]]]


def _codes(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """A number for each row that equal vectors share, int64, and whether the row's vector is usable, bool."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((dataset.dim, DIRECTIONS)).astype(np.float32)
    mixers = rng.integers(1, 2**62, DIRECTIONS) | 1
    codes, usable = np.empty(dataset.n_rows, np.int64), np.empty(dataset.n_rows, bool)
    for start in range(0, dataset.n_rows, 65_536):
        stop = min(start + 65_536, dataset.n_rows)
        x = unit_rows(dataset, start, stop)
        codes[start:stop] = (np.round(x @ directions / GRID).astype(np.int64) * mixers).sum(1)
        usable[start:stop] = x.any(1)
    return codes, usable


def _plain(text: str) -> str:
    """The text without case, accents and white space."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if unicodedata.category(c) != "Mn" and not c.isspace())
