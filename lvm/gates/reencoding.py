"""The comparison behind two gates: an encoder reproduces stored vectors."""

import numpy as np

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.gates.result import GateResult, gate_result

SAMPLE = 64
"""Chunks that are embedded again."""


def reencoded(name: str, whose: str, dataset: Dataset, encoder: Encoder, problem: str, remedy: str, limits: GateThresholds) -> GateResult:
    """The result of the gate `name`: a sample of chunks, embedded by `encoder`, agrees with the stored vectors.

    Agreement is the cosine times the ratio of the shorter to the longer norm: a cosine alone would miss that only one side
    scales to unit length. The value is the worst agreement. `whose` names the encoder in the reason; `problem` follows if it fails.
    """
    rows = np.sort(np.random.default_rng(0).choice(dataset.n_rows, min(SAMPLE, dataset.n_rows), replace=False))
    stored = np.asarray(dataset.vectors[rows], np.float64)
    again = encoder.encode(dataset.texts(rows)).astype(np.float64)
    norms = np.linalg.norm(stored, axis=1), np.linalg.norm(again, axis=1)
    agreement = (stored * again).sum(1) / np.maximum(*norms) ** 2
    same_dtype = dataset.manifest.encoder_dtype == encoder.dtype
    threshold = limits.encoder_contract if same_dtype else limits.encoder_contract_other_dtype
    off = np.flatnonzero(~(agreement >= threshold))  # a NaN disagrees too
    worst = float(agreement.min())
    reason = f"{len(rows)} chunks embedded again by {whose} agree to {agreement.mean():.5f}, at worst {worst:.5f}"
    if not same_dtype:
        reason += f" ({encoder.dtype} against {dataset.manifest.encoder_dtype})"
    if len(off):
        documents = sorted({dataset.doc_ids[dataset.row_doc[rows[i]]] for i in off})[:5]
        reason += f"; {len(off)} do not, in {documents}. {problem}"
    return gate_result(name, worst, threshold, bool(len(off)), reason, remedy)
