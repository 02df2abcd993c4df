"""Gates on a dataset, before any training.

They read stored vectors and keys only, so they see what was stored and not what was meant.
"""

import numpy as np
import torch

from lvm.config import GATES, GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.vectors import unusable_rows
from lvm.data.windows import leaked_rows
from lvm.evaluation.intervals import MIN_DOCUMENTS, Interval, document_interval
from lvm.gates.result import GateResult, gate_result
from lvm.gates.stages import stage_gates

ADJACENT_COSINE = 0.98
"""Adjacent chunks of a document above this cosine count as nearly equal."""


CPU = torch.device("cpu")


LAGS = 5
"""Lags of the profile of `chunk_order`."""


SAMPLED_DOCUMENTS = 400
"""Documents that `chunk_order` reads at most: enough for intervals of ± .003, and a bound on time in a corpus of millions."""


MORE_DOCUMENTS = "give more documents (ten or more)"


def unit_rows(dataset: Dataset, start: int, stop: int) -> np.ndarray:
    """Unit vectors of a range of rows, [rows, D]; zero and non-finite vectors become zero."""
    vectors = np.nan_to_num(np.asarray(dataset.vectors[start:stop]), nan=0.0, posinf=0.0, neginf=0.0)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def lag_profile(dataset: Dataset, seed: int = 0) -> tuple[list[float], Interval]:
    """Mean cosine at lags 1 to 5, and the lead of lag 1 over chunks shuffled within their documents.

    Uses at most 400 random documents of more than `LAGS` chunks; the profile is empty if there is none. The mean over all
    shuffles has a closed form: the mean cosine of two different chunks of the document.
    """
    lengths = np.diff(dataset.starts)
    docs = np.flatnonzero(lengths > LAGS)
    docs = np.random.default_rng(seed).permutation(docs)[:SAMPLED_DOCUMENTS]
    profile, weights = np.zeros(LAGS), np.zeros(LAGS)
    leads, owners = [], []
    for doc in docs:
        x = unit_rows(dataset, dataset.starts[doc], dataset.starts[doc + 1])
        for lag in range(1, LAGS + 1):
            profile[lag - 1] += float((x[:-lag] * x[lag:]).sum())
            weights[lag - 1] += len(x) - lag
        total, n = x.sum(0), len(x)
        shuffled = (total @ total - (x * x).sum()) / (n * (n - 1))
        adjacent = (x[:-1] * x[1:]).sum(1)
        leads.append(adjacent - shuffled)
        owners.append(np.full(n - 1, doc))
    if not leads:
        return [], Interval(0.0, None, None)
    return list(profile / np.maximum(weights, 1)), document_interval(np.concatenate(leads), np.concatenate(owners))


@GATES.register("chunk_order", stage="data", nightly=True)
def chunk_order(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """Chunks are in reading order: adjacent ones are more alike than shuffled ones.

    Fails when the interval of the lead touches 0 or cannot be computed, or when the stored positions of a document are not
    0, 1, 2, ..., so that a window would skip chunks; warns below `chunk_order_warn`.
    """
    expected = np.arange(dataset.n_rows) - dataset.starts[dataset.row_doc]
    gaps = np.flatnonzero(dataset.chunk_index != expected)
    profile, lead = lag_profile(dataset)
    if len(gaps):
        names = sorted({dataset.doc_ids[d] for d in dataset.row_doc[gaps[:200]]})[:5]
        reason = f"chunk_index is not 0, 1, 2, ... in {names}, so that windows would skip chunks or cross documents"
        return gate_result("chunk_order", lead.value, 0.0, True, reason, "extract again")
    if not profile:
        reason = f"no document has more than {LAGS} chunks, too few to tell their order from a shuffle"
        return gate_result("chunk_order", lead.value, 0.0, True, reason, "give longer documents")
    shown = ", ".join(f"{value:.3f}" for value in profile)
    reason = f"adjacent cosine leads a shuffle by {lead}; lags 1-5: {shown}; rho(1) - rho(5) = {profile[0] - profile[-1]:.3f}"
    remedy = "check how the text was ingested, or give more documents"
    if lead.low is None:
        remedy = f"give {MIN_DOCUMENTS} or more documents of more than {LAGS} chunks"
    elif not lead.above_zero():
        reason += ". The order of chunks was lost, or there are too few documents to show it"
    return gate_result("chunk_order", lead.value, 0.0, not lead.above_zero(), reason, remedy, lead.value < limits.chunk_order_warn)


@GATES.register("split_leakage", stage="data")
def split_leakage(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """No document is in two splits, and few evaluation chunks have their content in train as well.

    Such chunks (equal text, or a cosine of .995 or more) are never scored.
    """
    owner: dict[str, set[str]] = {}
    splits = dataset.table.column("split").to_numpy(zero_copy_only=False)
    for doc in range(len(dataset.doc_ids)):
        found = set(splits[dataset.starts[doc] : dataset.starts[doc + 1]])
        owner.setdefault(dataset.doc_ids[doc], set()).update(found)
    torn = [doc_id for doc_id, found in owner.items() if len(found) > 1]
    if torn:
        reason = f"{len(torn)} documents are in two splits: {torn[:5]}"
        return gate_result("split_leakage", float(len(torn)), 0.0, True, reason, "split by document, extract again")
    shares, copies = [], []
    for split in ("val", "test"):
        rows, leaked = dataset.rows(split), leaked_rows(dataset, split, device)
        if not len(rows) or not len(dataset.rows("train")):
            empty = split if not len(rows) else "train"
            reason = f"split '{empty}' is empty, so that nothing can be {'learned' if empty == 'train' else 'evaluated'}"
            return gate_result("split_leakage", 1.0, limits.leaked_rows_fail, True, reason, MORE_DOCUMENTS)
        shares.append(len(leaked) / len(rows))
        copies.append(leaked)
    share = max(shares)
    reason = f"chunks that are in train as well: val {shares[0]:.2%}, test {shares[1]:.2%}, left out of scoring"
    failed, warned = share > limits.leaked_rows_fail, share > limits.leaked_rows_warn
    if warned:
        worst = _most_often(dataset, np.concatenate(copies))
        reason += f"; most in {worst}"
    remedy = "remove copied documents, or lower splits.min_shared so that they form one group"
    return gate_result("split_leakage", share, limits.leaked_rows_fail, failed, reason, remedy, warned)


def _most_often(dataset: Dataset, rows: np.ndarray) -> str:
    """The three documents with most of `rows`, with their counts."""
    docs, counts = np.unique(dataset.row_doc[rows], return_counts=True)
    return ", ".join(f"{dataset.doc_ids[docs[i]]} ({counts[i]})" for i in np.argsort(-counts, kind="stable")[:3])


@GATES.register("duplicates", stage="data", nightly=True)
def duplicates(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """No chunk is stored twice, no vector is zero or not finite, and few adjacent chunks are nearly equal."""
    keys = dataset.row_doc.astype(np.int64) << 32 | dataset.chunk_index.astype(np.int64)
    repeated = np.setdiff1d(np.arange(dataset.n_rows), np.unique(keys, return_index=True)[1])
    bad = unusable_rows(dataset.vectors)
    near: list[int] = []
    pairs = 0
    for start in range(0, dataset.n_rows, 65_536):
        stop = min(start + 65_536, dataset.n_rows)
        x = unit_rows(dataset, start, min(stop + 1, dataset.n_rows))
        same = dataset.row_doc[start : start + len(x) - 1] == dataset.row_doc[start + 1 : start + len(x)]
        near += (start + np.flatnonzero(((x[:-1] * x[1:]).sum(1) > ADJACENT_COSINE) & same)).tolist()
        pairs += int(same.sum())
    share = len(near) / max(pairs, 1)
    problems = []
    if len(repeated):
        problems.append(f"{len(repeated)} keys (doc_id, chunk_index) occur twice, most in {_most_often(dataset, repeated)}")
    if len(bad):
        problems.append(f"{len(bad)} vectors are zero or not finite, most in {_most_often(dataset, bad)}")
    if share >= limits.adjacent_duplicates:
        where = _most_often(dataset, np.array(near))
        problems.append(f"{share:.1%} of neighbouring chunks have cosine > {ADJACENT_COSINE}, most in {where}: chunks were stored twice")
    reason = f"no repeated key, no bad vector, {share:.2%} of neighbours nearly equal"
    if problems:
        reason = "; ".join(problems)
    return gate_result("duplicates", share, limits.adjacent_duplicates, bool(problems), reason, "extract again, each document once")


@GATES.register("pairing", stage="data")
def pairing(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """Contexts and targets of the evaluation splits belong together as they do in train.

    Compares the mean cosine(last context chunk, target) of val and test with train's: for mispaired rows it drops to the
    corpus mean. Window keys must be distinct. Fails when a split has no two chunks in a row, since nothing can be compared then.
    """
    means = {}
    for split in ("train", "val", "test"):
        sums, count = 0.0, 0
        for doc in dataset.docs(split):
            x = unit_rows(dataset, dataset.starts[doc], dataset.starts[doc + 1])
            sums, count = sums + float((x[:-1] * x[1:]).sum()), count + len(x) - 1
        if not count:
            reason = f"split '{split}' has no chunk with another before it, so that nothing can be compared"
            return gate_result("pairing", 1.0, limits.pairing_difference, True, reason, MORE_DOCUMENTS)
        means[split] = sums / count
    keys = dataset.row_doc.astype(np.int64) << 32 | dataset.chunk_index.astype(np.int64)
    unique = len(np.unique(keys)) / dataset.n_rows
    difference = max(abs(means[s] - means["train"]) for s in ("val", "test"))
    failed = difference > limits.pairing_difference or unique < limits.pairing_unique
    shown = ", ".join(f"{split} {mean:.3f}" for split, mean in means.items())
    reason = f"mean cosine(last context, target): {shown}; distinct window keys {unique:.1%}"
    if failed:
        reason += ". Contexts and targets come from different rows, or the splits are of different kinds of text"
    return gate_result(
        "pairing", difference, limits.pairing_difference, failed, reason, "extract again, or give more documents of each kind"
    )


def data_gates(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> list[GateResult]:
    """Every gate on a dataset, in their order."""
    return [gate(dataset, limits, device) for gate in stage_gates("data").values()]
