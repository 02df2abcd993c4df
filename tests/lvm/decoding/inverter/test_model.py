"""The network is a T5 with its own arithmetic, and knows which hypothesis tokens count."""

import pytest
import torch
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from lvm.config import InverterConfig
from lvm.decoding.inverter.model import EOS, PAD, TIED_TO, Hypothesis, InverterModel

DIM = 16
CONFIG = InverterConfig(width=64, feed_forward=96, encoder_layers=1, decoder_layers=2, prefix=4, vocabulary=300, max_tokens=24, dropout=0)


@pytest.fixture()
def model() -> InverterModel:
    torch.manual_seed(0)
    model = InverterModel(CONFIG, DIM).eval()
    for name, weight in model.named_parameters():
        if "layer_norm" in name:
            torch.nn.init.normal_(weight, 1.0, 0.3)  # or a gain that is forgotten would not show
    return model


@pytest.fixture()
def vectors() -> torch.Tensor:
    return torch.randn(5, DIM, generator=torch.Generator().manual_seed(1))


def tokens(rows: int, length: int, seed: int = 2) -> torch.Tensor:
    """Texts of various lengths up to `length`, the first of just that; EOS, then PAD."""
    out = torch.randint(2, CONFIG.vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))
    for row in range(rows):
        out[row, length - 1 - row] = EOS
        out[row, length - row :] = PAD
    return out


def test_loss_is_that_of_a_stock_t5_on_the_same_weights(model: InverterModel, vectors: torch.Tensor) -> None:
    stock = T5ForConditionalGeneration(model.t5.config).eval()
    stock.load_state_dict(model.t5.state_dict())
    labels = tokens(5, 9)
    states = model.target((vectors - model.mean) / model.scale).unflatten(-1, (-1, CONFIG.width))
    before = F.pad(labels[:, :-1], (1, 0), value=PAD)
    expected = stock(inputs_embeds=states, decoder_input_ids=before, labels=labels.masked_fill(labels == PAD, -100)).loss
    torch.testing.assert_close(model(vectors, labels), expected)


def test_padding_of_labels_and_of_hypotheses_changes_nothing(model: InverterModel, vectors: torch.Tensor) -> None:
    labels, guess, own = tokens(5, 9), tokens(5, 7, seed=3), vectors.flip(0)
    plain = model(vectors, labels, Hypothesis(guess, own))
    padded = model(vectors, F.pad(labels, (0, 6), value=PAD), Hypothesis(F.pad(guess, (0, 8), value=PAD), own))
    torch.testing.assert_close(padded, plain)


@pytest.mark.parametrize("part", ["vectors", "guess tokens", "guess vectors"])
def test_whatever_is_given_changes_what_is_written(model: InverterModel, vectors: torch.Tensor, part: str) -> None:
    labels, guess, own = tokens(5, 9), tokens(5, 7, seed=3), vectors.flip(0)
    before = model(vectors, labels, Hypothesis(guess, own))
    other = {"vectors": vectors + 1 if part == "vectors" else vectors, "labels": labels}
    changed = Hypothesis(tokens(5, 7, seed=4) if part == "guess tokens" else guess, own + 1 if part == "guess vectors" else own)
    assert (model(**other, hypothesis=changed) - before).abs() > 1e-4


def test_vectors_of_any_size_and_place_reach_the_network_alike(model: InverterModel, vectors: torch.Tensor) -> None:
    plain, labels = model.encode(vectors)[0], tokens(5, 9)
    loss = model(vectors, labels, Hypothesis(labels, vectors.flip(0)))
    moved = vectors * 40 + 7
    model.mean.fill_(7)
    model.scale.fill_(40)
    torch.testing.assert_close(model.encode(moved)[0], plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(moved, labels, Hypothesis(labels, moved.flip(0))), loss, rtol=1e-4, atol=1e-4)


def test_embedding_is_one_matrix_and_still_one_after_loading(model: InverterModel, vectors: torch.Tensor) -> None:
    untied = {name: value for name, value in model.state_dict().items() if name not in model.tied}
    with torch.device("meta"):
        loaded = InverterModel(CONFIG, DIM)
    loaded.load_weights(untied)
    state = loaded.eval().state_dict()
    assert {state[name].data_ptr() for name in (*model.tied, TIED_TO)} == {state[TIED_TO].data_ptr()}
    torch.testing.assert_close(loaded(vectors, tokens(5, 9)), model(vectors, tokens(5, 9)), rtol=0, atol=0)
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())


def test_weights_of_another_network_do_not_load(model: InverterModel) -> None:
    untied = {name: value for name, value in model.state_dict().items() if name not in model.tied}
    with pytest.raises(RuntimeError, match=r"t5\.decoder\.block\.1"):
        InverterModel(CONFIG.model_copy(update={"decoder_layers": 1}), DIM).load_weights(untied)
    with pytest.raises(RuntimeError, match=TIED_TO):
        InverterModel(CONFIG, DIM).load_weights({name: value for name, value in untied.items() if name != TIED_TO})
