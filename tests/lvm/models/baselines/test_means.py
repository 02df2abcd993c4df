"""Exponentially weighted means: their weights, and the decay that is found."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

from lvm.data.windows import contexts, make_windows, retrieval_ranks, unit
from lvm.models.baselines import fit_baselines
from lvm.models.baselines.means import DECAYS, decayed
from tests.support.planted import grown, planted


@given(arrays(np.float64, st.tuples(st.just(2), st.integers(1, 9), st.just(3)), elements=st.floats(-5, 5)), st.floats(0.05, 1))
def test_the_weighted_mean_weighs_by_powers_of_the_decay(context: np.ndarray, decay: float) -> None:
    weights = [decay**lag for lag in reversed(range(context.shape[1]))]
    np.testing.assert_allclose(decayed(torch.from_numpy(context), decay), np.average(context, axis=1, weights=weights), atol=1e-5)


@pytest.mark.parametrize("truth", [0.5, 0.8])
def test_the_decay_the_data_were_made_by_is_found(tmp_path: Path, cpu: torch.device, truth: float) -> None:
    weights = truth ** np.arange(5, -1, -1)
    documents = grown(lambda x, rng: np.average(x[-6:], axis=0, weights=weights) + 0.3 * rng.normal(size=16), dim=16)
    found = fit_baselines(planted(tmp_path, documents), 6, 200, cpu)
    assert found.choices()["ewma.decay"] == pytest.approx(truth, abs=0.051)


def test_each_decay_is_the_best_on_validation_for_its_own_metric(tmp_path: Path, cpu: torch.device) -> None:
    # A document's own mean helps the cosine, the last chunk tells which of its chunks comes next.
    def step(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 0.2 * x[-1] + 0.8 * rng.normal(size=x.shape[1])

    rng = np.random.default_rng(3)
    made = planted(tmp_path, [document + 2 * rng.normal(size=6) for document in grown(step)])
    fitted = fit_baselines(made, 4, 1000, cpu)
    windows = make_windows(made, "val", 4, 1000, cpu)
    context = torch.cat(list(contexts(made.vectors, windows.targets, 4, cpu)))
    targets, pool = torch.from_numpy(made.vectors[windows.targets]), unit(made.vectors[windows.pool], cpu)

    def cosine(decay: float) -> float:
        return float(F.cosine_similarity(decayed(context, decay), targets).mean())

    def retrieval(decay: float) -> float:
        ranks = retrieval_ranks(decayed(context - fitted.mean, decay), pool, windows.answer, windows.excluded)
        return float((ranks <= 1).mean() + (ranks <= 5).mean() + (1 / ranks).mean())

    found = {metric: fitted.choices()[name] for name, metric in (("ewma.decay", cosine), ("centred_ewma.decay", retrieval))}
    for metric, decay in found.items():
        place = DECAYS.index(decay)
        assert metric(decay) >= max(metric(nearby) for nearby in DECAYS[max(place - 1, 0) : place + 2]) - 1e-6
    assert len(set(found.values())) == 2  # else a mix-up of metrics would not show
