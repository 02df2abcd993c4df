"""How often 95 % intervals over documents hold the truth, by method and number of documents.

    python -m bench.statistics.coverage

Reads the populations that `bench.statistics.collect` wrote (addresses.json, mixed.json): real documents with the sums of their windows'
metrics. The mean over all windows of a population is the truth. K documents are drawn with replacement, many times, and each method
makes its interval from them. Writes coverage.json and coverage.md.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lvm.evaluation.intervals import interval_of_sums, mean_estimate, t_interval
from lvm.reports.tables.table import Table

HERE = Path(__file__).parent
SIZES = (5, 8, 13, 30, 100)
PAIRS = ((5, 13), (8, 13), (13, 13), (13, 30))
DRAWS, BCA_DRAWS, RESAMPLES = 4000, 500, 999
SHIPPED = "Student's t, CR3, Satterthwaite's freedom (lvm.evaluation.intervals)"

Ends = tuple[np.ndarray, np.ndarray]
"""Lower and upper ends [R] of the intervals of R draws."""

Population = tuple[np.ndarray, dict[str, np.ndarray]]
"""Windows of each document, and the sums of each quantity over them."""


def population(written: dict[str, Any], longest_out: int = 0) -> Population:
    """Means, skills, and differences of two models in each metric; without the longest documents."""
    counts = np.array(written["windows"], float)
    kept = np.sort(np.argsort(counts)[: len(counts) - longest_out])
    sums = {name: {metric: np.array(s)[kept] for metric, s in found.items()} for name, found in written["sums"].items()}
    quantities = {}
    for metric in sums["lstm"]:
        quantities[metric] = sums["lstm"][metric]
        quantities[f"{metric}, LSTM minus best baseline"] = sums["lstm"][metric] - sums["best baseline"][metric]
        quantities[f"{metric}, LSTM minus Transformer"] = sums["lstm"][metric] - sums["transformer"][metric]
    return counts[kept], quantities


def means(sums_RK: np.ndarray, counts_RK: np.ndarray, weights_BK: np.ndarray) -> np.ndarray:
    """Means of every draw over resampled documents, [B, R]; `weights_BK` says how often each is drawn again."""
    return (weights_BK @ sums_RK.T) / (weights_BK @ counts_RK.T)


def percentile(sums_RK: np.ndarray, counts_RK: np.ndarray, weights_BK: np.ndarray) -> Ends:
    """The percentile bootstrap (Efron & Tibshirani 1993, ch. 13)."""
    return tuple(np.percentile(means(sums_RK, counts_RK, weights_BK), [2.5, 97.5], axis=0))


def bca(sums_RK: np.ndarray, counts_RK: np.ndarray, weights_BK: np.ndarray) -> Ends:
    """Bias-corrected and accelerated (ibid., ch. 14), by scipy, on the first draws alone: it is slow."""
    draws = (sums_RK[:BCA_DRAWS], counts_RK[:BCA_DRAWS])

    def ratio(s: np.ndarray, c: np.ndarray, axis: int) -> np.ndarray:
        return s.sum(axis) / c.sum(axis)

    found = stats.bootstrap(draws, ratio, paired=True, vectorized=True, axis=-1, method="BCa", n_resamples=RESAMPLES, batch=50, rng=0)
    return found.confidence_interval.low, found.confidence_interval.high


def bootstrap_t(sums_RK: np.ndarray, counts_RK: np.ndarray, weights_BK: np.ndarray) -> Ends:
    """The studentised bootstrap (ibid., ch. 12.5), with the linearised standard error of the ratio."""
    value, error = linearised(sums_RK, counts_RK)
    again = means(sums_RK, counts_RK, weights_BK)
    squares, products, weights = (weights_BK @ x.T for x in (sums_RK**2, sums_RK * counts_RK, counts_RK**2))
    errors = np.sqrt(np.maximum(squares - 2 * again * products + again**2 * weights, 0)) / (weights_BK @ counts_RK.T)
    t = np.divide(again - value, errors, out=np.sign(again - value) * 1e9, where=errors > 1e-12)
    low, high = np.percentile(t, [2.5, 97.5], axis=0)
    scale = np.sqrt(np.square(error).sum(1))
    return value - high * scale, value - low * scale


def linearised(sums_RK: np.ndarray, counts_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over all windows, [R], and what each document adds to its error to first order, [R, K]."""
    total = counts_RK.sum(1, keepdims=True)
    value = sums_RK.sum(1, keepdims=True) / total
    return value[:, 0], (sums_RK - value * counts_RK) / total


def student(sums_RK: np.ndarray, counts_RK: np.ndarray, weights_BK: np.ndarray, power: float, factor: float) -> Ends:
    """Student's t with K - 1 degrees of freedom; errors divided by (1 - the document's share) ** `power`, variance times `factor`."""
    value, error = linearised(sums_RK, counts_RK)
    share = counts_RK / counts_RK.sum(1, keepdims=True)
    reach = stats.t.ppf(0.975, counts_RK.shape[1] - 1) * np.sqrt(factor * np.square(error / (1 - share) ** power).sum(1))
    return value - reach, value + reach


def shipped(sums_RK: np.ndarray, counts_RK: np.ndarray, weights_BK: np.ndarray) -> Ends:
    """The method of `lvm.evaluation.intervals`."""
    found = [interval_of_sums(*draw) for draw in zip(sums_RK, counts_RK, strict=True)]
    low, high = np.array([(one.low, one.high) for one in found], float).T
    return low, high


def methods(documents: int) -> dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Ends]]:
    """Every method by name."""
    few = documents / (documents - 1)
    return {
        "percentile bootstrap (until now)": percentile,
        "BCa bootstrap (scipy)": bca,
        "studentised bootstrap": bootstrap_t,
        "Student's t, linearised (CR1), K - 1": partial(student, power=0, factor=few),
        "Student's t, CR2, K - 1": partial(student, power=0.5, factor=1),
        "Student's t, jackknife, K - 1": partial(student, power=1, factor=1 / few),
        "Student's t, CR3, K - 1": partial(student, power=1, factor=1),
        SHIPPED: shipped,
    }


def study(of: Population) -> dict[str, Any]:
    """Coverage by method, number of documents and quantity, and the median width over that of the percentile bootstrap."""
    counts, quantities = of
    covered: dict[str, Any] = {}
    width: dict[str, Any] = {}
    for documents in SIZES:
        rng = np.random.default_rng(documents)
        drawn = rng.integers(0, len(counts), (DRAWS, documents))
        weights = rng.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES).astype(float)
        for name, sums in quantities.items():
            truth, wide = sums.sum() / counts.sum(), {}
            for method, make in methods(documents).items():
                low, high = make(sums[drawn], counts[drawn], weights)
                wide[method] = float(np.median(high - low))
                share = float(((low <= truth) & (truth <= high)).mean())
                covered.setdefault(method, {}).setdefault(str(documents), {})[name] = share
            for method, found in wide.items():
                width.setdefault(method, {}).setdefault(str(documents), []).append(found / next(iter(wide.values())))
    return {"coverage": covered, "width": {m: {k: float(np.median(v)) for k, v in found.items()} for m, found in width.items()}}


def two_samples(of: Population) -> dict[str, dict[str, float]]:
    """Coverage of the difference of two means from the same population, whose truth is 0, by numbers of documents and quantity."""
    counts, quantities = of
    found: dict[str, dict[str, float]] = {}
    for pair in PAIRS:
        rng = np.random.default_rng(pair)
        drawn = [rng.integers(0, len(counts), (DRAWS, documents)) for documents in pair]
        for name, sums in quantities.items():
            inside = 0
            for rows in zip(*drawn, strict=True):
                first, second = (mean_estimate(sums[row], counts[row]) for row in rows)
                one = t_interval(first.value - second.value, [first, second])
                inside += one.low <= 0 <= one.high
            found.setdefault(" and ".join(map(str, pair)), {})[name] = inside / DRAWS
    return found


def main() -> None:
    """Study every population, print and write."""
    written = {name: json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")) for name in ("addresses", "mixed")}
    populations = {
        written["addresses"]["about"]: population(written["addresses"]),
        f"{written['mixed']['about']}; without the two longest": population(written["mixed"], longest_out=2),
        f"{written['mixed']['about']}; all": population(written["mixed"]),
    }
    results = {about: study(of) for about, of in populations.items()}
    pairs = two_samples(next(iter(populations.values())))
    (HERE / "coverage.json").write_text(json.dumps({"studies": results, "two samples": pairs}, indent=1) + "\n", encoding="utf-8")
    page = markdown(results, pairs)
    (HERE / "coverage.md").write_text(page, encoding="utf-8")
    print(page)


def markdown(results: dict[str, Any], pairs: dict[str, dict[str, float]]) -> str:
    """The study as a page."""
    columns = ["", *(f"{documents} documents" for documents in SIZES)]
    parts = [
        "# Coverage of 95 % intervals over documents",
        f"Made by `python -m bench.statistics.coverage`; all numbers are in coverage.json. {DRAWS:,} draws of documents with replacement "
        f"({BCA_DRAWS} for BCa), {RESAMPLES} resamples of each for the bootstraps. Twelve quantities: cosine, recall@1, recall@5 and MRR "
        "of the demo's LSTM, minus the best baseline's, and minus the Transformer's. Each cell: the lowest coverage of the twelve, then "
        "their mean.",
    ]
    for about, found in results.items():
        rows = [
            [method, *(f"{min(by[str(k)].values()):.3f}, {np.mean(list(by[str(k)].values())):.3f}" for k in SIZES)]
            for method, by in found["coverage"].items()
        ]
        rows.append(["*width of the last over the first, median*", *(f"{found['width'][SHIPPED][str(k)]:.2f}" for k in SIZES)])
        parts.append(Table(about, columns, rows).markdown())
    first = next(iter(results.values()))["coverage"][SHIPPED]
    parts.append(Table("The last method on the addresses, by quantity", columns, [
        [name, *(f"{first[str(k)][name]:.3f}" for k in SIZES)] for name in first[str(SIZES[0])]
    ]).markdown())  # fmt: skip
    parts.append(Table("Difference of the means of two sets of addresses, lowest and mean of the twelve", ["documents", "coverage"], [
        [pair, f"{min(by.values()):.3f}, {np.mean(list(by.values())):.3f}"] for pair, by in pairs.items()
    ]).markdown())  # fmt: skip
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
