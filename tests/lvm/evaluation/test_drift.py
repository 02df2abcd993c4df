"""Drift is measured without bias, and tested so that chance raises the alarm as often as the level says."""

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from lvm.evaluation import drift
from lvm.evaluation.drift import document_distances, embedding_drift, energy_share, skill_drift
from lvm.evaluation.intervals import document_interval


def unit_documents(rng: np.random.Generator, count: int, shift: float = 0.0, dim: int = 16, chunks: tuple[int, int] = (3, 9)):
    out = []
    for _ in range(count):
        x = rng.normal(size=(rng.integers(*chunks), dim)) + 0.5 * rng.normal(size=dim)
        x[:, 0] += shift
        out.append((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32))
    return out


def evaluation(values: np.ndarray, docs: np.ndarray) -> Any:
    return SimpleNamespace(
        skills=lambda metric: values, skill=lambda metric: document_interval(values, docs), windows=SimpleNamespace(docs=docs)
    )


def skills(rng: np.random.Generator, documents: int, mean: float) -> Any:
    docs = np.repeat(np.arange(documents), rng.integers(5, 40, documents))
    return evaluation(mean + 0.006 * rng.normal(size=documents)[docs] + 0.05 * rng.normal(size=len(docs)), docs)


def test_distance_of_documents_is_the_mean_over_pairs_of_chunks(rng=np.random.default_rng(0)):
    documents = unit_documents(rng, 4)
    found = document_distances(documents)
    for i, a in enumerate(documents):
        for j, b in enumerate(documents):
            if i != j:
                assert found[i, j] == pytest.approx(np.mean([np.linalg.norm(x - y) for x in a for y in b]), abs=1e-5)


def test_energy_share_is_its_definition(rng=np.random.default_rng(1)):
    d = document_distances(unit_documents(rng, 7))
    labels = np.array([1.0, 0, 1, 0, 0, 1, 0])
    a, b = np.flatnonzero(labels), np.flatnonzero(labels == 0)
    across = d[np.ix_(a, b)].mean()
    within = [np.mean([d[i, j] for i in side for j in side if i != j]) for side in (a, b)]
    assert energy_share(d, labels[None])[0] == pytest.approx((2 * across - sum(within)) / (2 * across))


@pytest.mark.parametrize("chunks", [(3, 9), (30, 31)])
def test_share_is_zero_on_average_for_documents_of_one_kind_however_few_or_short(chunks):
    rng = np.random.default_rng(2)
    labels = np.repeat([1.0, 0.0], [4, 12])[None]
    found = []
    for _ in range(60):
        short, long = unit_documents(rng, 4, chunks=(2, 4)), unit_documents(rng, 12, chunks=chunks)
        found.append(energy_share(document_distances([*short, *long]), labels)[0])
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(60)
    moved = energy_share(document_distances([*unit_documents(rng, 4, shift=6.0), *unit_documents(rng, 12)]), labels)[0]
    assert moved > max(found)


def test_chance_raises_the_alarm_as_often_as_the_level_says(monkeypatch):
    monkeypatch.setattr(drift, "RESHUFFLES", 199)
    rng = np.random.default_rng(3)
    p = np.array([skill_drift(skills(rng, 6, 0.01), skills(rng, 9, 0.01), "cosine").p for _ in range(300)])
    # Binomial: 300 nights at 5 % are 15 ± 3.8 alarms.
    assert 4 <= (p <= 0.05).sum() <= 28
    assert 0.4 < p.mean() < 0.6


def test_lost_skill_is_certain_and_a_gain_is_none():
    rng = np.random.default_rng(4)
    own = skills(rng, 13, 0.008)
    lost, gained = (skill_drift(skills(rng, 20, mean), own, "cosine") for mean in (-0.02, 0.04))
    assert lost.p <= 0.001 and lost.difference.high is not None and lost.difference.high < 0
    assert gained.p > 0.5 and gained.difference.above_zero()
    assert lost.least_p <= 0.001


def test_what_was_seen_counts_as_one_of_the_permutations():
    own, night = (skills(np.random.default_rng(7), 40, mean) for mean in (0.02, -0.02))
    certain = skill_drift(night, own, "cosine")
    assert certain.p == 1 / (drift.RESHUFFLES + 1), "never 0, however great the loss"
    same = evaluation(np.full(60, 0.25), np.repeat(np.arange(12), 5))
    assert skill_drift(same, same, "cosine").p == 1.0, "never more than 1, however many are as great"


def test_skill_that_is_not_a_number_is_certain_drift():
    docs = np.repeat(np.arange(8), 5)
    broken = skill_drift(evaluation(np.full(40, np.nan), docs), skills(np.random.default_rng(5), 8, 0.01), "cosine")
    assert broken.p <= 0.001 and np.isnan(broken.difference.value)


def test_few_documents_are_said_to_allow_no_certainty():
    rng = np.random.default_rng(6)
    assert skill_drift(skills(rng, 5, 0.0), skills(rng, 4, 0.0), "cosine").least_p == pytest.approx(1 / 126)


def test_test_documents_of_the_record_are_no_drift_and_the_same_documents_moved_are(dataset):
    held = dataset.docs("test").tolist() + dataset.docs("val").tolist()
    found = embedding_drift(only(dataset, held), dataset)
    assert found.p > 0.001 and found.documents == (len(held), len(dataset.docs("train")))
    assert found.share.low is not None and found.share.low < found.share.value < found.share.high
    moved = only(dataset, held)
    moved = SimpleNamespace(docs=moved.docs, starts=moved.starts, vectors=moved.vectors[:, ::-1])
    far = embedding_drift(moved, dataset)
    assert far.p <= 0.001 and far.share.value > 0.02 > far.chance


def held(documents: list[np.ndarray]) -> Any:
    """A dataset of these documents, as far as `embedding_drift` looks."""
    starts = np.concatenate([[0], np.cumsum([len(document) for document in documents])])
    return SimpleNamespace(docs=lambda split: np.arange(len(documents)), starts=starts, vectors=np.concatenate(documents))


def test_the_interval_of_the_share_is_students_with_the_variance_of_the_jackknife(rng=np.random.default_rng(8)):
    sides = [unit_documents(rng, 6, shift=1.0), unit_documents(rng, 9)]
    found = embedding_drift(held(sides[0]), held(sides[1])).share
    variances = []
    for side, documents in enumerate(sides):
        left_out = []
        for out in range(len(documents)):
            kept = [part[:out] + part[out + 1 :] if number == side else part for number, part in enumerate(sides)]
            labels = np.repeat([1.0, 0.0], [len(part) for part in kept])
            left_out.append(energy_share(document_distances([*kept[0], *kept[1]]), labels[None])[0])
        variances.append((len(documents) - 1) / len(documents) * np.square(left_out - np.mean(left_out)).sum())
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 5 + variances[1] ** 2 / 8)
    reach = t.ppf(0.975, freedom) * np.sqrt(sum(variances))
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach), rel=1e-5)


@pytest.mark.parametrize(("documents", "ends"), [(4, False), (5, True)])
def test_the_share_has_an_interval_from_five_documents_a_side_on(documents, ends, rng=np.random.default_rng(9)):
    for sizes in ((documents, 8), (8, documents)):
        night, record = (held(unit_documents(rng, count)) for count in sizes)
        assert (embedding_drift(night, record).share.low is not None) == ends


def test_chance_is_what_one_permutation_in_a_thousand_exceeds(rng=np.random.default_rng(10)):
    documents = unit_documents(rng, 6)
    found = embedding_drift(held(documents[:3]), held(documents[3:]))
    distances = document_distances(documents)
    every = [energy_share(distances, np.isin(np.arange(6), chosen).astype(float)[None])[0] for chosen in combinations(range(6), 3)]
    # With 20 divisions, each is drawn about 500 times, so that the greatest is the quantile.
    assert found.chance == pytest.approx(max(every))


def test_only_so_many_documents_and_chunks_are_read(monkeypatch, rng=np.random.default_rng(11)):
    monkeypatch.setattr(drift, "SAMPLED_DOCUMENTS", 5)
    monkeypatch.setattr(drift, "SAMPLED_CHUNKS", 3)
    read = []
    monkeypatch.setattr(drift, "document_distances", lambda documents: read.extend(documents) or document_distances(documents))
    scaled = [2.0 * document for document in unit_documents(rng, 9, chunks=(6, 9))]
    found = embedding_drift(held(scaled[:5]), held(scaled[3:]))
    assert found.documents == (5, 5)
    assert [len(chunks) for chunks in read] == [3] * 10
    assert all(np.linalg.norm(chunks, axis=1) == pytest.approx(1) for chunks in read), "at unit length"
    assert len({chunks.tobytes() for chunks in read[:5]}) == 5, "of different documents"
    rows = [np.flatnonzero(np.isclose(scaled[d] / 2, chunks[0], atol=1e-6).all(1)) for chunks in read[:5] for d in range(5)]
    assert sum(len(found) for found in rows) == 5, "each of the night's own"


@pytest.mark.parametrize("reshuffles", [1, 999, 1000, 1001, 2500])
def test_as_many_permutations_are_drawn_as_are_asked_for(reshuffles, monkeypatch):
    monkeypatch.setattr(drift, "RESHUFFLES", reshuffles)
    own, night = (skills(np.random.default_rng(7), 40, mean) for mean in (0.02, -0.02))
    found = skill_drift(night, own, "cosine")
    assert found.p == found.least_p == 1 / (reshuffles + 1)


def only(dataset: Any, docs: list[int]) -> Any:
    """A view of the dataset that holds these documents alone, as far as `embedding_drift` looks."""
    return SimpleNamespace(docs=lambda split: np.array(docs), starts=dataset.starts, vectors=dataset.vectors)
