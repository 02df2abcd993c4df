"""Whether the sentences of a document stand in an order, told from its vectors.

The chunker cuts a sentence that is too long into several chunks. These belong together in whatever order the sentences stand, so only
chunks of different sentences are compared. Then the expectation over all orders of a document's sentences is known exactly.
"""

import re
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, binomtest, chi2

from lvm.data.dataset import Dataset
from lvm.evaluation.intervals import Interval, document_interval, interval_of_sums
from lvm.gates.data.rows import unit_rows

LAGS = 5
"""Distances, in sentences, of the profile; a document needs more sentences than that."""


TESTED_LAGS = 4
"""Distances that the test of a single document looks at. Lists repeat with a period of two to four lines: there the neighbours are
less alike than others, and those further on more."""


TESTED_SENTENCES = 20
"""Documents with fewer sentences are not tested one by one: too many intact ones would look shuffled."""


MIDDLE = 10
"""Sentences `LAGS` to so many apart are compared with those further apart: in shuffled paragraphs the ones are as alike as the others."""


LONG_DOCUMENT = MIDDLE + 6
"""Sentences of a document for that comparison: those further apart are 15 pairs at least."""


LEVEL = 0.2
"""Of shuffled documents the test calls so many in order. A lower level would call more lists and change logs shuffled."""


SAMPLED_DOCUMENTS = 400
"""Documents that are read at most: enough for intervals of ± .003, and a bound on time in a corpus of millions."""


SAMPLED_SENTENCES = 512
"""Sentences of a document that are read at most: the table of all pairs has its square."""


CHANCE = 2.33
"""Standard deviations above which a lead is no chance: that of shuffled documents gets there once in a hundred times."""


ORDERS = 200
"""Random orders that give the deviation of a document's leads."""


SENTENCE_END = re.compile(r"[.!?…。！？।]['\"”’)\]»*_`]*$")
"""How a chunk ends that the next one does not continue."""


@dataclass(frozen=True)
class Order:
    """What the documents show of their order."""

    profile: list[float]
    """Mean cosine from the last chunk of a sentence to the first chunk of the one 1, 2, ..., `LAGS` later; empty without documents."""

    lead: Interval
    """Mean cosine of neighbours of different sentences, less what it would be in a random order of the sentences."""

    deviations: float
    """The lead over the standard deviation that it has among random orders of the sentences of these very documents."""

    far: np.ndarray
    """Of each document of `LONG_DOCUMENT` or more sentences its weight, its reach (`reach_of`) and its lead: float64 [K, 3]."""

    tested: int
    """Documents of `TESTED_SENTENCES` or more sentences."""

    in_order: int
    """Tested documents whose order differs from a random one, at the level `LEVEL`."""

    def shuffled(self) -> tuple[float, float]:
        """Estimated share of shuffled documents among the tested ones, and its lower 99 % bound; zeros without any.

        All but `LEVEL` of the shuffled ones look so (Storey 2002, eq. 2); the bound is that of Clopper & Pearson (1934).
        """
        looks = self.tested - self.in_order
        if not looks:
            return 0.0, 0.0
        low = binomtest(looks, self.tested, alternative="greater").proportion_ci(0.99).low
        return min(looks / self.tested / (1 - LEVEL), 1.0), float(low) / (1 - LEVEL)

    def visible(self) -> bool:
        """Whether there is any order: neighbours are more alike, or more documents are in order, than random orders would show.

        The interval of the lead says that of other documents too, which is more than is asked here; it is wide where documents differ.
        """
        more = binom.sf(self.in_order - 1, self.tested, LEVEL) < 0.05
        return self.lead.above_zero() or self.deviations > CHANCE or self.reach().above_zero() or bool(more)

    def reach(self, less: float = 0.0) -> Interval:
        """Mean reach of the longer documents, less this share of their leads. A long one's is known better, and weighs more."""
        if not len(self.far):
            return Interval(0.0, None, None)
        weight, reach, lead = self.far.T
        return interval_of_sums(weight * (reach - less * lead), weight)


def order_of(dataset: Dataset, seed: int = 0) -> Order:
    """The order of up to 400 random documents of more than `LAGS` sentences."""
    rng = np.random.default_rng(seed)
    docs = rng.permutation(np.flatnonzero(np.diff(dataset.starts) > LAGS))
    profile, weights = np.zeros(LAGS), np.zeros(LAGS)
    leads, owners, far, tested, in_order, variance = [], [], [], 0, 0, 0.0
    for doc in docs[:SAMPLED_DOCUMENTS]:
        cosines = sentence_cosines(dataset, doc)
        count = len(cosines)
        if count <= LAGS:
            continue
        for lag in range(1, LAGS + 1):
            profile[lag - 1] += np.diagonal(cosines, lag).sum()
            weights[lag - 1] += count - lag
        leads.append(np.diagonal(cosines, 1) - mean_of_orders(cosines))
        if count >= LONG_DOCUMENT:
            far.append([count - MIDDLE, reach_of(cosines), leads[-1].mean()])
        owners.append(np.full(count - 1, doc))
        deviations = deviations_of_orders(cosines, rng)
        variance += ((count - 1) * deviations[0]) ** 2
        if count >= TESTED_SENTENCES:
            tested += 1
            in_order += order_p(cosines, deviations) < LEVEL
    if not leads:
        return Order([], Interval(0.0, None, None), 0.0, np.zeros((0, 3)), 0, 0)
    values = np.concatenate(leads)
    lead = document_interval(values, np.concatenate(owners))
    deviations_of_all = float(values.sum() / np.sqrt(variance))
    return Order(list(profile / weights), lead, deviations_of_all, np.array(far).reshape(-1, 3), tested, int(in_order))


def sentence_cosines(dataset: Dataset, doc: int) -> np.ndarray:
    """Cosine from the last chunk of each sentence to the first chunk of each: float64 [S, S], of the first 512 sentences."""
    start, stop = int(dataset.starts[doc]), int(dataset.starts[doc + 1])
    first = np.flatnonzero(~continues(dataset, start, stop))
    last = np.append(first[1:], stop - start) - 1
    x = unit_rows(dataset, start, stop).astype(np.float64)
    return x[last[:SAMPLED_SENTENCES]] @ x[first[:SAMPLED_SENTENCES]].T


def continues(dataset: Dataset, start: int, stop: int) -> np.ndarray:
    """Which chunks of a range of rows of one document go on with the sentence of the chunk before: bool [rows].

    The chunker cuts a sentence only where two pieces are longer than the budget together, and a piece within a sentence rarely ends
    as a sentence does. On mixed text this finds 98.6 % of the chunks that continue one; of those it finds 14 % do not, mostly ends of
    list items, which costs a few pairs. How imported chunks were cut is not known: each is taken for a sentence.
    """
    chunker = dataset.manifest.chunker
    if chunker is None:
        return np.zeros(stop - start, bool)
    rows = dataset.table.slice(start, stop - start)
    lengths = rows.column("n_tokens").to_numpy()
    open_end = np.array([SENTENCE_END.search(text) is None for text in rows.column("text").to_pylist()])
    found = np.zeros(len(lengths), bool)
    found[1:] = (lengths[1:].astype(int) + lengths[:-1] > chunker.max_tokens) & open_end[:-1]
    return found


def mean_of_orders(cosines_SS: np.ndarray) -> float:
    """The mean cosine of neighbouring sentences over all orders of them: that of all pairs of different ones."""
    count = len(cosines_SS)
    return float((cosines_SS.sum() - np.trace(cosines_SS)) / (count * (count - 1)))


def reach_of(cosines_SS: np.ndarray) -> float:
    """Mean cosine of sentences `LAGS` to `MIDDLE` apart, less the mean of those further apart.

    Text of one subject becomes less alike with distance throughout. Where pieces of up to `LAGS` sentences stand in random order, two
    sentences of different pieces are equally alike at every distance, so that the expectation is 0.
    """
    count = len(cosines_SS)
    sums = np.array([np.trace(cosines_SS, lag) for lag in range(count)])
    pairs = count - np.arange(count)
    middle, further = slice(LAGS, MIDDLE + 1), slice(MIDDLE + 1, None)
    return float(sums[middle].sum() / pairs[middle].sum() - sums[further].sum() / pairs[further].sum())


def deviations_of_orders(cosines_SS: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard deviation, among random orders of the sentences, of the mean cosine at lags 1 to 4: float64 [4], never 0."""
    count = len(cosines_SS)
    orders = rng.permuted(np.tile(np.arange(count), (ORDERS, 1)), axis=1)
    lags = range(1, TESTED_LAGS + 1)
    means = [cosines_SS.ravel()[orders[:, :-lag] * count + orders[:, lag:]].mean(1) for lag in lags]
    return np.maximum(np.std(means, axis=1), 1e-6)


def order_p(cosines_SS: np.ndarray, deviations: np.ndarray) -> float:
    """The probability that a random order of the sentences shows as much structure, about uniform in (0, 1) for a shuffled document.

    The leads at lags 1 to 4, each over its deviation among random orders, are about independent and normal there, so that the sum
    of their squares is chi-squared.
    """
    leads = [np.diagonal(cosines_SS, lag).mean() - mean_of_orders(cosines_SS) for lag in range(1, TESTED_LAGS + 1)]
    return float(chi2.sf(np.square(leads / deviations).sum(), TESTED_LAGS))
