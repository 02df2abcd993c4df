"""The written-out decoder step writes what transformers' `generate` writes, and samples from the very distribution."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from lvm.config import InverterConfig
from lvm.data.dataset import Dataset
from lvm.decoding.inverter.model import EOS, PAD, Hypothesis, InverterModel
from lvm.decoding.inverter.text_writer import TextWriter
from lvm.decoding.inverter.token_writer import LOOK_EVERY, TokenWriter
from lvm.decoding.inverter.tokens import train_tokenizer

DIM, ROWS, LIMIT = 32, 48, 28
CONFIG = InverterConfig(width=128, feed_forward=96, encoder_layers=1, decoder_layers=2, prefix=4, vocabulary=320, max_tokens=LIMIT)
assert LIMIT % LOOK_EVERY, "the last steps are fewer than between two looks"


def network(end: float) -> InverterModel:
    """A network with random weights that ends its texts the sooner, the greater `end` is."""
    torch.manual_seed(0)
    model = InverterModel(CONFIG, DIM).eval()
    with torch.no_grad():
        for name, weight in model.t5.named_parameters():
            if "norm" in name:
                weight += 0.3 * torch.randn_like(weight)
            elif name.startswith("decoder"):
                weight *= 4  # or the next token would be the last one again: input and output embedding are one
        model.t5.shared.weight *= 0.1
        model.t5.shared.weight[EOS] *= end
    return model


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(5)) * 2


@pytest.fixture(scope="module")
def guess() -> Hypothesis:
    """Hypotheses of 1 to 13 tokens."""
    dice = torch.Generator().manual_seed(6)
    tokens = torch.randint(2, CONFIG.vocabulary, (ROWS, 13), generator=dice)
    lengths = torch.randint(1, 14, (ROWS, 1), generator=dice)
    return Hypothesis(tokens.masked_fill(torch.arange(13) >= lengths, PAD), torch.randn(ROWS, DIM, generator=dice))


def greedy(model: InverterModel, states: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    """What transformers writes: the reference."""
    mask = torch.ones(states.shape[:2], dtype=torch.long) if seen is None else seen.long()
    with torch.inference_mode():
        out = model.t5.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
            max_new_tokens=LIMIT,
            do_sample=False,
            num_beams=1,
            eos_token_id=EOS,
            pad_token_id=PAD,
            decoder_start_token_id=PAD,
            suppress_tokens=[PAD],
        )[:, 1:]
    return torch.nn.functional.pad(out, (0, LIMIT - out.shape[1]), value=PAD)


def encoded(model: InverterModel, vectors: torch.Tensor, guess: Hypothesis | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    with torch.inference_mode():
        return model.encode(vectors, guess)


def lengths(tokens: torch.Tensor) -> np.ndarray:
    """Tokens of each row before its end."""
    return ((tokens != PAD) & (tokens != EOS)).sum(1).numpy()


@pytest.mark.parametrize("corrects", [False, True], ids=["first", "correction"])
@pytest.mark.parametrize("end", [1.0, 2.0, 6.0], ids=["few end", "many end", "all end"])
def test_tokens_are_those_that_generate_writes(vectors: torch.Tensor, guess: Hypothesis, corrects: bool, end: float) -> None:
    model = network(end)
    states, seen = encoded(model, vectors, guess if corrects else None)
    assert (seen is not None) == corrects
    written = TokenWriter(model.t5, torch.float32, LIMIT)(states, seen)
    assert torch.equal(written, greedy(model, states, seen))
    ends = Counter((lengths(written) // LOOK_EVERY).tolist())
    assert len(written.unique(dim=0)) > 0.5 * ROWS or end == 6, "the rows differ"
    if end == 2:
        assert min(ends[0], ends[1]) > 1 and ends[LIMIT // LOOK_EVERY] > ROWS / 4, "rows leave at more than one look"


def test_a_row_writes_alone_what_it_writes_in_company(vectors: torch.Tensor, guess: Hypothesis) -> None:
    model = network(2.0)
    states, seen = encoded(model, vectors, guess)
    writer = TokenWriter(model.t5, torch.float32, LIMIT)
    together = writer(states, seen)
    for row in range(0, ROWS, 6):
        assert torch.equal(writer(states[row : row + 1], seen[row : row + 1])[0], together[row])


def test_after_an_end_there_is_padding_and_before_it_none(vectors: torch.Tensor) -> None:
    model = network(2.0)
    writer = TokenWriter(model.t5, torch.float32, LIMIT)
    for temperature in (0.0, 1.0, 50.0):
        tokens = writer(encoded(model, vectors)[0], None, temperature, torch.Generator().manual_seed(0))
        for row, length in zip(tokens.tolist(), lengths(tokens).tolist(), strict=True):
            assert PAD not in row[:length] and row[length:] == [EOS, *[PAD] * (LIMIT - length - 1)][: LIMIT - length]


def test_sampling_repeats_with_its_seed_and_differs_with_another(vectors: torch.Tensor) -> None:
    model = network(2.0)
    states = encoded(model, vectors)[0]
    writer = TokenWriter(model.t5, torch.float32, LIMIT)
    first, again, other = (writer(states, None, 0.7, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first != other).any(1).float().mean() > 0.5
    assert torch.equal(writer(states, None, 1e-6, torch.Generator().manual_seed(1)), writer(states, None)), "hardly any temperature is none"


@pytest.mark.parametrize("temperature", [0.03, 0.06])
def test_samples_follow_the_distribution_at_their_temperature(vectors: torch.Tensor, temperature: float) -> None:
    model, draws = network(2.0), 16_000
    states = encoded(model, vectors)[0][:1]
    with torch.inference_mode():
        logits = model.t5(encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=torch.tensor([[PAD]])).logits[0, 0]
        logits[PAD] = -torch.inf
    tokens = TokenWriter(model.t5, torch.float32, 1)(states.expand(draws, -1, -1), None, temperature, torch.Generator().manual_seed(3))
    found = torch.bincount(tokens[:, 0], minlength=CONFIG.vocabulary)[1:].numpy()
    right, wrong = ((logits / t).softmax(0)[1:].double().numpy() for t in (temperature, 0.9 * temperature))
    likely = right * draws > 5
    assert likely.sum() > 20
    assert chisquare(found[likely], right[likely] / right[likely].sum() * found[likely].sum()).pvalue > 0.001
    assert chisquare(found[likely], wrong[likely] / wrong[likely].sum() * found[likely].sum()).pvalue < 1e-6, "the test tells a tenth of it"


# Texts


@pytest.fixture(scope="module")
def tokenizer(dataset: Dataset) -> Tokenizer:
    return train_tokenizer(dataset.texts(np.arange(300)), CONFIG.vocabulary)


def test_texts_are_the_same_however_many_are_written_at_once(tokenizer: Tokenizer, vectors: torch.Tensor, dataset: Dataset) -> None:
    writer = TextWriter(network(2.0), tokenizer, torch.float32)
    sought, own = vectors.numpy(), vectors.flip(0).numpy()
    texts = dataset.texts(np.arange(ROWS))
    whole = writer.write(sought), writer.write(sought, texts, own)
    writer.width = 7
    assert (writer.write(sought), writer.write(sought, texts, own)) == whole
    assert whole[0] != whole[1] and len(whole[0]) == ROWS


def test_in_bfloat16_most_texts_begin_as_in_float32(tokenizer: Tokenizer, vectors: torch.Tensor) -> None:
    exact, rounded = (TextWriter(network(2.0), tokenizer, dtype).write(vectors.numpy()) for dtype in (torch.float32, torch.bfloat16))
    assert np.mean([a[:4] == b[:4] for a, b in zip(exact, rounded, strict=True)]) > 0.8


def test_the_writer_takes_the_weights_as_they_are_when_it_is_made(vectors: torch.Tensor) -> None:
    model = network(2.0)
    states = encoded(model, vectors)[0]
    before = TokenWriter(model.t5, torch.float32, LIMIT)(states, None)
    with torch.no_grad():
        for weight in model.t5.decoder.parameters():
            weight += 0.5 * torch.randn_like(weight)
    after = TokenWriter(model.t5, torch.float32, LIMIT)(states, None)
    assert torch.equal(after, greedy(model, states, None)) and not torch.equal(after, before)


def test_rows_beyond_the_texts_and_states_of_an_earlier_batch_change_nothing(
    vectors: torch.Tensor, guess: Hypothesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CUDA's recorded steps rely on: fixed shapes, and buffers that are used again."""
    model = network(2.0)
    whole, first = encoded(model, vectors, guess), encoded(model, vectors)[0]
    writer = TokenWriter(model.t5, torch.float32, LIMIT)
    expected, expected_first = writer(*whole), writer(first, None)
    monkeypatch.setattr(writer, "_rows", lambda count: 1 << (count - 1).bit_length())
    buffers = writer._filled_buffers(*whole)
    for _ in range(2):
        writer.buffers = buffers
        assert torch.equal(writer(*whole), expected)
        writer.buffers = buffers
        assert torch.equal(writer(first, None), expected_first)
        writer.buffers = buffers
        assert torch.equal(writer(whole[0][:5], whole[1][:5]), expected[:5])  # type: ignore[index]
    assert len(buffers.token) == 64 > ROWS and buffers.mask.shape[-1] == 32 > whole[0].shape[1]
