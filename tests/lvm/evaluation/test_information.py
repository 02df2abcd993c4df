"""What a prediction tells is measured right where the truth is known, and never more is claimed than was shown."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lvm.config import EXCLUDED_BEFORE
from lvm.data.dataset import Dataset
from lvm.data.windows import Windows, make_windows, unit
from lvm.errors import InputError
from lvm.evaluation.information import (
    Contrast,
    candidate_count,
    contrast,
    distractors,
    fit_temperature,
    information,
    log_likelihoods,
    negatives,
    similarities,
)

CPU = torch.device("cpu")
N, K = 4_000, 512
TOPICS, WAYS = 8, 4


@pytest.fixture(scope="module")
def windows(dataset: Dataset) -> Windows:
    """Validation windows of real text."""
    return make_windows(dataset, "val", 3, 10_000, CPU)


def contrasted(predicted: dict[str, torch.Tensor], dataset: Dataset, windows: Windows, count: int) -> Contrast:
    found = contrast(predicted, dataset, windows, count)
    assert found is not None
    return found


# Contrastive accuracy


@pytest.mark.parametrize("count", [1, 9])
def test_an_oracle_always_tells_its_chunk_its_opposite_never_and_noise_by_chance(dataset: Dataset, windows: Windows, count: int) -> None:
    truth = torch.from_numpy(dataset.vectors[windows.targets])
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    found = contrasted({"oracle": truth, "opposite": -truth, "noise": noise, "nan": truth * float("nan")}, dataset, windows, count)
    assert found.chance == 1 / (count + 1)
    assert found.accuracy["oracle"].value == 1 and found.accuracy["opposite"].value == 0 and found.accuracy["nan"].value == 0
    assert found.accuracy["noise"].value == pytest.approx(found.chance, abs=0.06)
    low, high = found.accuracy["noise"].low, found.accuracy["noise"].high
    assert low is not None and high is not None and high - low < 0.15
    assert found.lead["noise"].value == pytest.approx(1 - found.accuracy["noise"].value) and set(found.lead) == {"opposite", "noise", "nan"}


def test_one_vector_for_all_windows_gains_nothing(dataset: Dataset, windows: Windows) -> None:
    constant = torch.from_numpy(dataset.vectors[dataset.rows("train")].mean(0)).expand(len(windows.targets), -1)
    found = contrasted({"mean": constant}, dataset, windows, 1)
    assert found.accuracy["mean"].value == pytest.approx(0.5, abs=0.06)


def test_the_last_chunk_is_above_chance_on_real_text(dataset: Dataset, windows: Windows) -> None:
    found = contrasted({"copy_last": torch.from_numpy(dataset.vectors[windows.targets - 1])}, dataset, windows, 1)
    assert found.accuracy["copy_last"].low > found.chance  # type: ignore[operator]


def test_distractors_are_other_chunks_of_the_document_that_the_pool_would_offer(dataset: Dataset, windows: Windows) -> None:
    kept, rows = distractors(dataset, windows.targets, 3)
    targets = windows.targets[kept]
    assert np.array_equal(dataset.row_doc[rows], np.repeat(dataset.row_doc[targets][:, None], 3, 1))
    back = targets[:, None] - rows
    assert ((back < 0) | (back > EXCLUDED_BEFORE)).all()
    assert (dataset.text_codes[rows] != dataset.text_codes[targets][:, None]).all()
    assert all(len(set(row)) == 3 for row in rows)
    assert np.array_equal(rows, distractors(dataset, windows.targets, 3)[1]), "seeded"


def test_windows_at_the_end_of_a_document_have_no_distractor_and_are_left_out(dataset: Dataset) -> None:
    doc = next(d for d in range(len(dataset.doc_ids)) if dataset.starts[d + 1] - dataset.starts[d] <= EXCLUDED_BEFORE)
    last = dataset.starts[doc + 1] - 1
    kept, rows = distractors(dataset, np.array([last, last - 5]), 1)
    assert kept.tolist() == [1] and last - 5 < rows[0, 0] <= last


def test_documents_that_are_too_short_give_no_accuracy_instead_of_a_wrong_one(dataset: Dataset, windows: Windows) -> None:
    predicted = {"model": torch.from_numpy(dataset.vectors[windows.targets])}
    assert contrast(predicted, dataset, windows, 100_000) is None


# InfoNCE where the truth is known: the next chunk is one of 8 topics and 4 ways, each equally likely


def cosines(seen: np.ndarray, truth: np.ndarray, rng: np.random.Generator, parts: tuple[int, ...]) -> torch.Tensor:
    """[N, K]: 1 where a candidate has all that was seen of it, else 0. `truth` [N, 2]; `parts` are what the critic reads."""
    drawn = np.stack([rng.integers(TOPICS, size=(N, K - 1)), rng.integers(WAYS, size=(N, K - 1))], -1)
    candidates = np.concatenate([truth[:, None], drawn], 1)
    return torch.from_numpy(np.logical_and.reduce([candidates[..., p] == seen[:, None, p] for p in parts]).astype(float))


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, torch.Tensor]]:
    """Similarities of two splits by critics that see nothing, the topic, the topic now and then, or all."""
    out = {}
    for seed, split in enumerate(("val", "test")):
        rng = np.random.default_rng(seed)
        truth = np.stack([rng.integers(TOPICS, size=N), rng.integers(WAYS, size=N)], 1)
        other = np.stack([rng.integers(TOPICS, size=N), rng.integers(WAYS, size=N)], 1)
        clouded = np.where(rng.random((N, 1)) < 0.5, truth, other)
        state = rng.bit_generator.state
        views = {"all": (truth, (0, 1)), "topic": (truth, (0,)), "clouded topic": (clouded, (0,)), "nothing": (other, (0, 1))}
        out[split] = {}
        for name, (seen, parts) in views.items():
            rng.bit_generator.state = state  # the same candidates for every critic
            out[split][name] = cosines(seen, truth, rng, parts)
    return out


DOCS = np.arange(N) // 40


def test_a_bound_is_near_the_truth_and_not_above_it(known: dict[str, dict[str, torch.Tensor]]) -> None:
    found = information(known["val"], known["test"], ["topic"], DOCS)
    true = {"all": np.log(TOPICS * WAYS), "topic": np.log(TOPICS), "nothing": 0.0}
    for name, value in true.items():
        bound = found.critics[name].bound
        assert bound.low is not None and bound.low <= value + 1e-3, (name, bound, value)
        assert bound.value == pytest.approx(value, abs=0.08), (name, bound, value)


def test_a_gain_is_the_conditional_information_where_both_critics_miss_nothing(known: dict[str, dict[str, torch.Tensor]]) -> None:
    found = information(known["val"], known["test"], ["topic", "clouded topic"], DOCS)
    assert found.last_chunk == "topic", "the best of those that read the last chunk alone"
    assert set(found.gains) == {"all", "nothing"}
    assert found.gains["all"].value == pytest.approx(np.log(WAYS), abs=0.08)


def test_a_gain_over_a_poor_critic_is_more_than_there_is_and_so_no_bound(known: dict[str, dict[str, torch.Tensor]]) -> None:
    found = information(known["val"], known["test"], ["clouded topic"], DOCS)
    assert found.gains["all"].low > np.log(WAYS) + 0.5  # type: ignore[operator]


def test_no_bound_exceeds_its_ceiling() -> None:
    perfect = torch.zeros(N, 4).double()
    perfect[:, 0] = 1
    found = information({"perfect": perfect, "none": perfect * 0}, {"perfect": perfect, "none": perfect * 0}, ["none"], DOCS)
    assert found.ceiling == np.log(4) and found.candidates == 4
    assert found.ceiling - 1e-6 < found.critics["perfect"].bound.value < found.ceiling + 1e-9
    assert found.critics["none"].bound.value == pytest.approx(0, abs=1e-9)


def test_temperatures_and_the_choice_of_a_critic_come_from_validation_alone(known: dict[str, dict[str, torch.Tensor]]) -> None:
    swapped = known["test"] | {"topic": known["test"]["clouded topic"], "clouded topic": known["test"]["topic"]}
    plain, doctored = (information(known["val"], test, ["topic", "clouded topic"], DOCS) for test in (known["test"], swapped))
    assert plain.last_chunk == doctored.last_chunk == "topic"
    assert {n: c.temperature for n, c in plain.critics.items()} == {n: c.temperature for n, c in doctored.critics.items()}


def test_the_fitted_temperature_is_better_than_its_neighbours(known: dict[str, dict[str, torch.Tensor]]) -> None:
    cosine = known["val"]["clouded topic"]
    best = fit_temperature(cosine)
    fitted, *others = (log_likelihoods(cosine, best * factor).mean() for factor in (1, 0.8, 1.25))
    assert fitted > max(others)


# InfoNCE on real text


def test_candidates_are_the_true_next_chunk_and_chunks_of_other_documents(dataset: Dataset, windows: Windows) -> None:
    count = candidate_count((dataset, windows))
    others = negatives(dataset, windows, count)
    assert others.shape == (len(windows.answer), count - 1)
    assert (dataset.row_doc[windows.pool[others]] != windows.docs[:, None]).all()
    assert all(len(set(row)) == count - 1 for row in others[:20])
    pool, truth = unit(dataset.vectors[windows.pool], CPU), torch.from_numpy(dataset.vectors[windows.targets])
    cosine = similarities(3 * truth, pool, windows, others)
    torch.testing.assert_close(cosine[:, 0], torch.ones(len(truth)).double(), atol=1e-5, rtol=0)
    by_hand = (pool[windows.answer[7]] @ pool[others[7]].T).double()
    torch.testing.assert_close(cosine[7, 1:], by_hand, atol=1e-5, rtol=0)


def test_every_split_has_as_many_candidates_as_the_smallest_gives(dataset: Dataset, windows: Windows) -> None:
    largest = max(int((windows.docs == doc).sum()) for doc in np.unique(windows.docs))
    count = candidate_count((dataset, windows))
    assert 1 < count <= min(1_024, len(windows.pool) - largest + 1)
    few = replace(windows, pool=windows.pool[:1], answer=windows.answer[:0], docs=windows.docs[-1:])
    assert candidate_count((dataset, windows), (dataset, few)) == 2


def test_a_split_of_one_document_is_refused(dataset: Dataset, windows: Windows) -> None:
    own = dataset.row_doc[windows.pool] == windows.docs[0]
    with pytest.raises(InputError, match=r"a split has only one document.*give more documents"):
        candidate_count((dataset, replace(windows, pool=windows.pool[own], docs=windows.docs[:1])))
