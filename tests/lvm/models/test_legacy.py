"""The broken original is broken in the ways that it should be, and in no other."""

import pytest
import torch

from lvm.config import ARCHITECTURES, LossConfig, ModelConfig, train_config
from lvm.errors import InputError
from lvm.models import Predictor, build_predictor
from lvm.models.legacy import LegacyPredictor

DIM = 12


def fresh(arch: str, heads: str = "legacy") -> Predictor:
    torch.manual_seed(0)
    config = ModelConfig(arch=arch, dim=DIM, width=64, heads=heads)  # type: ignore[arg-type]
    return build_predictor(config, torch.randn(DIM), torch.rand(DIM) + 0.5).eval()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_unit_vector_serves_both_purposes_at_every_position(arch: str) -> None:
    context = torch.randn(3, 5, DIM)
    found = fresh(arch)(context)
    assert torch.equal(found.decoder, found.cosine)
    torch.testing.assert_close(found.decoder.norm(dim=-1), torch.ones(3, 5))
    y_dec, y_cos = fresh(arch)(context, return_both=True)
    assert torch.equal(y_dec, y_cos)
    # To the last bits: some processors round a product of another shape otherwise (1.2e-7 seen).
    torch.testing.assert_close(y_dec, found.decoder[:, -1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_its_trunk_is_that_of_the_residual_model_and_its_head_one_linear_layer(arch: str) -> None:
    legacy, residual = fresh(arch), fresh(arch, "residual")
    assert isinstance(legacy, LegacyPredictor) and not isinstance(residual, LegacyPredictor)
    names = {name for name, _ in legacy.named_parameters() if not name.startswith("trunk.")}
    assert names == {"head.weight", "head.bias"}
    ours, theirs = legacy.trunk.state_dict(), residual.trunk.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_is_causal() -> None:
    model, context = fresh("gru"), torch.randn(2, 6, DIM)
    torch.testing.assert_close(model(context).cosine[:, :4], model(context[:, :4]).cosine)


def test_the_recipe_is_mse_alone_and_the_callers_settings_lie_over_it() -> None:
    config = train_config("gru", DIM, preset="legacy")
    assert (config.model.heads, config.model.name) == ("legacy", "gru (legacy)")
    weights = {name: getattr(config.loss, name) for name in ("regression", "norm", "infonce", "moments", "variance", "mse")}
    assert weights == {"regression": 0, "norm": 0, "infonce": 0, "moments": 0, "variance": 0, "mse": 1}
    assert train_config("lstm", DIM, ["loss.infonce=0.1", "loss.mse=2"], preset="legacy").loss == config.loss.model_copy(
        update={"infonce": 0.1, "mse": 2.0}
    )


def test_by_default_nothing_of_it_is_used() -> None:
    config = train_config("gru", DIM)
    assert (config.model.heads, config.model.name, config.loss) == ("closed_forms", "gru", LossConfig())
    assert config.loss.mse == 0


def test_an_unknown_recipe_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="preset 'broken' is not known: there are demo, quality, legacy"):
        train_config("gru", DIM, preset="broken")
