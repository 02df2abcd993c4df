"""Gates on the dataset, before any training.

Each looks at vectors and keys alone, so it sees what was stored and not what was meant.
"""

from collections.abc import Callable

import numpy as np
import torch

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.data.vectors import unusable_rows
from lvm.data.windows import leaked_rows
from lvm.evaluation.intervals import MIN_DOCUMENTS, Interval, document_bootstrap
from lvm.gates.result import GateResult, gate_result

ADJACENT_COSINE = 0.98


CPU = torch.device("cpu")


LAGS = 5


# Enough for intervals of ± .003, and a bound on time in a corpus of millions.
SAMPLED_DOCUMENTS = 400


MORE_DOCUMENTS = "give more documents (ten or more)"


def unit_rows(dataset: Dataset, start: int, stop: int) -> np.ndarray:
    """Vectors of a range of rows at unit length; zero and non-finite ones become zero."""
    vectors = np.nan_to_num(np.asarray(dataset.vectors[start:stop]), nan=0.0, posinf=0.0, neginf=0.0)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def lag_profile(dataset: Dataset, seed: int = 0) -> tuple[list[float], Interval]:
    """Mean cosine at lags 1 to 5, and the lead of lag 1 over a within-document shuffle.

    Over at most 400 random documents of more than `LAGS` chunks; an empty profile where there is none. The shuffle is averaged in
    closed form: the mean cosine of two different chunks of the document, which is what a random
    order would put side by side.
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
    return list(profile / np.maximum(weights, 1)), document_bootstrap(np.concatenate(leads), np.concatenate(owners))


def chunk_order(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """Chunks stand in reading order: adjacent ones are more alike than shuffled ones.

    Fails when the interval of the lead touches 0 or there is none, when stored positions are not 0, 1, 2, ... in
    a document (a window would jump), warns under `chunk_order_warn`.
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


def split_leakage(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """No document in two splits, and few evaluation rows whose content stands in train.

    The rows that do (equal text, or cosine of .995 or more) are dropped from scoring in any case.
    """
    owner: dict[str, set[str]] = {}
    splits = dataset.table.column("split").to_numpy(zero_copy_only=False)
    for doc in range(len(dataset.doc_ids)):
        found = set(splits[dataset.starts[doc] : dataset.starts[doc + 1]])
        owner.setdefault(dataset.doc_ids[doc], set()).update(found)
    torn = [doc_id for doc_id, found in owner.items() if len(found) > 1]
    if torn:
        reason = f"{len(torn)} documents stand in two splits: {torn[:5]}"
        return gate_result("split_leakage", float(len(torn)), 0.0, True, reason, "split by document, extract again")
    shares, copies = [], []
    for split in ("val", "test"):
        rows, leaked = dataset.rows(split), leaked_rows(dataset, split, device)
        if not len(rows) or not len(dataset.rows("train")):
            empty = split if not len(rows) else "train"
            reason = f"split '{empty}' is empty, so that nothing can be {'learned' if empty == 'train' else 'judged'}"
            return gate_result("split_leakage", 1.0, limits.leaked_rows_fail, True, reason, MORE_DOCUMENTS)
        shares.append(len(leaked) / len(rows))
        copies.append(leaked)
    share = max(shares)
    reason = f"rows that stand in train: val {shares[0]:.2%}, test {shares[1]:.2%}, dropped from scoring"
    failed, warned = share > limits.leaked_rows_fail, share > limits.leaked_rows_warn
    if warned:
        worst = _most_often(dataset, np.concatenate(copies))
        reason += f"; most in {worst}"
    remedy = "remove copied documents, or lower splits.min_shared so that they form one group"
    return gate_result("split_leakage", share, limits.leaked_rows_fail, failed, reason, remedy, warned)


def _most_often(dataset: Dataset, rows: np.ndarray) -> str:
    """The three documents that hold most of `rows`, with their counts."""
    docs, counts = np.unique(dataset.row_doc[rows], return_counts=True)
    return ", ".join(f"{dataset.doc_ids[docs[i]]} ({counts[i]})" for i in np.argsort(-counts, kind="stable")[:3])


def duplicates(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """No chunk stored twice, no vector zero or NaN, few neighbours that are all but equal."""
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


def pairing(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """Contexts and targets of the evaluation splits belong together as they do in train.

    Compares the mean cosine(last context chunk, target) of val and test with train's: rows
    that were mispaired on the way fall to the corpus mean. Keys of windows must be distinct. Fails,
    since nothing can be compared, when a split has no two chunks in a row.
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


DATA_GATES: dict[str, Callable[[Dataset, GateThresholds, torch.device], GateResult]] = {
    "chunk_order": chunk_order,
    "split_leakage": split_leakage,
    "duplicates": duplicates,
    "pairing": pairing,
}


def data_gates(dataset: Dataset, limits: GateThresholds = GateThresholds(), device: torch.device = CPU) -> list[GateResult]:
    """Every gate on the data, in the order in which a reader would ask."""
    return [gate(dataset, limits, device) for gate in DATA_GATES.values()]


SAMPLE = 64


def encoder_unchanged(dataset: Dataset, encoder: Encoder, limits: GateThresholds = GateThresholds()) -> GateResult:
    """The encoder of today gives chunks that were stored some time ago their stored vectors again; measured as `encoder_contract`.

    Weights of the same digest can still give other vectors, after an upgrade of a library or a driver. Raises `InputError`
    when the recipes differ.
    """
    dataset.manifest.recipe.require_same(encoder.recipe, f"dataset {dataset.path}")
    problem = "The encoder gives other vectors than the model was trained on"
    remedy = "go back to the versions of then, or extract and train again"
    return reencoded("encoder_unchanged", "today's encoder", dataset, encoder, problem, remedy, limits)


def reencoded(name: str, whose: str, dataset: Dataset, encoder: Encoder, problem: str, remedy: str, limits: GateThresholds) -> GateResult:
    """The gate `name`: a sample of rows, embedded by `encoder`, against their stored vectors."""
    rows = np.sort(np.random.default_rng(0).choice(dataset.n_rows, min(SAMPLE, dataset.n_rows), replace=False))
    stored = np.asarray(dataset.vectors[rows], np.float64)
    again = encoder.encode(dataset.texts(rows)).astype(np.float64)
    norms = np.linalg.norm(stored, axis=1), np.linalg.norm(again, axis=1)
    agreement = (stored * again).sum(1) / np.maximum(*norms) ** 2
    same_dtype = dataset.manifest.encoder_dtype == encoder.dtype
    threshold = limits.encoder_contract if same_dtype else limits.encoder_contract_other_dtype
    off = np.flatnonzero(~(agreement >= threshold))  # a NaN is off too
    worst = float(agreement.min())
    reason = f"{len(rows)} chunks embedded again by {whose} agree to {agreement.mean():.5f}, at worst {worst:.5f}"
    if not same_dtype:
        reason += f" ({encoder.dtype} against {dataset.manifest.encoder_dtype})"
    if len(off):
        documents = sorted({dataset.doc_ids[dataset.row_doc[rows[i]]] for i in off})[:5]
        reason += f"; {len(off)} do not, in {documents}. {problem}"
    return gate_result(name, worst, threshold, bool(len(off)), reason, remedy)
