"""A batch in pieces gives the gradients of the whole batch, and memory that runs out changes how it is done, not what is learned."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import TrainConfig, train_config
from lvm.data.dataset import Dataset
from lvm.data.statistics import EncoderStatistics
from lvm.errors import InputError, ran_out_of_memory
from lvm.models import build_predictor
from lvm.training import trainer as training
from lvm.training.batches import BatchVectors
from lvm.training.distributed import Ranks
from lvm.training.gradcache import BatchGradients, Losses
from lvm.training.trainer import Trainer, train
from tests.support.trainings import Killed, events, tiny, what_repeats

CPU = torch.device("cpu")
STRETCHES, LENGTH, DIM = 7, 6, 16
TERMS = {"regression", "norm", "infonce", "moments", "variance"}


def config(arch: str = "lstm", *extra: str) -> TrainConfig:
    """A small model on which every term pulls about as hard."""
    weights = ["loss.norm=1", "loss.infonce=1", "loss.moments=1", "loss.variance=1"]
    return train_config(arch, DIM, ["model.width=64", "model.layers=2", "model.dropout=0", "model.inner_dropout=0", *weights, *extra])


def batch() -> BatchVectors:
    """Stretches of which some end early, with negatives of their own; the first and the last say nearly the same."""
    generator = torch.Generator().manual_seed(0)
    stretch = torch.randn(STRETCHES, LENGTH + 1, DIM, generator=generator)
    stretch[-1] = stretch[0] + 0.01 * torch.randn(LENGTH + 1, DIM, generator=generator)
    valid = torch.arange(LENGTH)[None] < torch.tensor([6, 6, 3, 6, 2, 6, 6])[:, None]
    anchors = valid & (torch.rand(STRETCHES, LENGTH, generator=generator) < 0.7)
    docs = torch.tensor([0, 1, 1, 2, 3, 4, 5])
    rows = 100 * docs[:, None] + torch.arange(LENGTH) + torch.tensor([0, 0, 9, 0, 0, 0, 0])[:, None]
    return BatchVectors(
        context=stretch[:, :-1],
        targets=stretch[:, 1:],
        valid=valid,
        anchors=anchors,
        anchor_rows=rows[anchors],
        anchor_docs=docs[:, None].expand_as(anchors)[anchors],
        negatives=torch.randn(2 * STRETCHES, DIM, generator=generator),
        negative_rows=(100 * docs + 50).repeat_interleave(2),
        negative_docs=docs.repeat_interleave(2),
    )


def prepared(chosen: TrainConfig) -> BatchGradients:
    """A model whose residuals are alive: at their zero start the trunk would have no gradient to compare."""
    torch.manual_seed(0)
    statistics = EncoderStatistics(torch.zeros(DIM), torch.ones(DIM), 4.0, torch.full((DIM,), 0.25))
    model = build_predictor(chosen.model, statistics.mean, statistics.std)
    for head in (model.decoder_residual, model.cosine_residual):
        nn.init.normal_(head.fc2.weight, std=0.1)
    return BatchGradients(model.train(), chosen, statistics, CPU, Ranks())


def gradients(done: BatchGradients) -> torch.Tensor:
    return torch.cat([w.grad.flatten() for w in done.weights if w.grad is not None])


def at_once(done: BatchGradients, size: int, with_shares: bool = False) -> tuple[Losses, torch.Tensor]:
    """Losses and gradients of the batch, `size` stretches at a time."""
    done.micro_batch = size
    losses = done(batch(), 3, with_shares)
    return losses, gradients(done)


# The same gradients


@pytest.mark.parametrize("arch", ["lstm", "gru", "mamba2", "transformer", "amn"])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_pieces_give_the_loss_and_the_gradients_of_the_whole_batch(arch: str, size: int) -> None:
    done = prepared(config(arch))
    whole, expected = at_once(done, 0)
    losses, found = at_once(done, size)
    assert set(losses.terms) == TERMS
    for name, term in whole.terms.items():
        assert float(term) > 0
        torch.testing.assert_close(losses.terms[name], term, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.total, whole.total, rtol=1e-5, atol=1e-6)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_losses_of_pieces_alone_would_give_other_gradients() -> None:
    """What the test above would not see if the batch's statistics did not matter here."""
    done = prepared(config())
    _, expected = at_once(done, 0)
    own, whole = [], batch()
    for first in range(STRETCHES):
        inside = torch.zeros_like(whole.anchors)
        inside[first] = whole.anchors[first]
        some = inside[whole.anchors]
        piece = replace(whole, anchors=inside, anchor_rows=whole.anchor_rows[some], anchor_docs=whole.anchor_docs[some])
        done(replace(piece, valid=inside), 3, False)
        own.append(gradients(done))
    alone = torch.stack(own).mean(0)
    assert float((alone - expected).norm() / expected.norm()) > 0.1


def test_near_duplicates_are_masked_across_pieces() -> None:
    vectors = batch()
    assert float(F.cosine_similarity(vectors.targets[0], vectors.targets[-1], dim=-1).min()) > 0.95
    flat = ("loss.temperature=1",)  # so that every candidate counts
    masked, unmasked = prepared(config("lstm", *flat)), prepared(config("lstm", *flat, "loss.duplicate_cosine=1"))
    losses = [float(at_once(done, size)[0].terms["infonce"]) for done in (masked, unmasked) for size in (0, 1)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[2] == pytest.approx(losses[3], rel=1e-5)
    assert losses[2] - losses[0] > 1e-3  # a hundred times what rounding moves


def test_shares_of_the_terms_are_those_of_the_whole_batch() -> None:
    done = prepared(config())
    whole, pieces = at_once(done, 0, True)[0], at_once(done, 2, True)[0]
    assert set(whole.shares) == {f"train/gradient_share_{name}" for name in TERMS}
    assert pieces.shares == pytest.approx(whole.shares, rel=1e-4) and at_once(done, 2)[0].shares == {}


def test_weights_that_no_term_reaches_have_no_gradient_in_pieces_either() -> None:
    done = prepared(config("lstm", "loss.infonce=0", "loss.variance=0"))
    for size in (0, 2):
        at_once(done, size)
        assert {name for name, w in done.model.named_parameters() if w.grad is None} == {
            name for name, _ in done.model.named_parameters() if name.startswith("cosine_")
        }


@pytest.mark.parametrize("arch", ["lstm", "transformer"])
def test_dropout_of_a_piece_is_the_same_both_times_it_runs_and_another_elsewhere(arch: str) -> None:
    done = prepared(config(arch, "model.dropout=0.5"))
    seen: list[torch.Tensor] = []
    done.model.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    at_once(done, 2)
    first, second = seen[:4], seen[4:]
    assert [len(part) for part in first] == [2, 2, 2, 1]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0] == 0, first[1] == 0), "pieces drop out different values"
    done(batch(), 4, False)
    assert not torch.equal(seen[8], first[0]), "as do steps"


@pytest.mark.parametrize(("arch", "dropout", "pieces", "off"), [("lstm", 0.5, 2, True), ("gru", 0.5, 3, True), ("lstm", 0.0, 2, False),
                                                               ("lstm", 0.5, 1, False), ("transformer", 0.5, 2, False)])  # fmt: skip
def test_cudnn_is_off_only_where_its_own_dropout_would_differ_the_second_time(arch: str, dropout: float, pieces: int, off: bool) -> None:
    done = prepared(config(arch, f"model.dropout={dropout}"))
    done.device = torch.device("cuda")
    enabled = torch.backends.cudnn.enabled
    with done._replayable([slice(i, i + 1) for i in range(pieces)]):
        assert torch.backends.cudnn.enabled == (enabled and not off)
    assert torch.backends.cudnn.enabled == enabled


def test_a_batch_of_one_piece_predicts_once() -> None:
    done = prepared(config())
    calls: list[int] = []
    done.model.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    expected = at_once(done, 0)[1]
    losses = done._divided(batch(), 3, False)
    assert calls == [STRETCHES, STRETCHES] and torch.isfinite(losses.total)
    torch.testing.assert_close(gradients(done), expected, rtol=1e-4, atol=1e-6)


# Out of memory


def fits(model: nn.Module, most: int) -> None:
    """From now on `model` in training runs out of memory on more than `most` stretches, as CUDA does: by torch's own exception."""

    def allocate(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training and len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    model.register_forward_pre_hook(allocate)


@pytest.mark.parametrize(("most", "settled"), [(7, 0), (6, 4), (4, 4), (3, 2), (1, 1)])
def test_out_of_memory_halves_the_pieces_until_they_fit(most: int, settled: int) -> None:
    done = prepared(config())
    _, expected = at_once(done, 0)
    fits(done.model, most)
    _, found = at_once(done, 0)
    assert done.micro_batch == settled
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_memory_that_runs_out_on_the_way_back_is_the_same() -> None:
    done = prepared(config())
    _, expected = at_once(done, 0)

    def allocate(gradient: torch.Tensor) -> None:
        if len(gradient) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def follow(module: nn.Module, inputs: tuple[torch.Tensor, ...], states: torch.Tensor) -> None:
        if states.requires_grad:
            states.register_hook(allocate)

    done.model.trunk.register_forward_hook(follow)
    _, found = at_once(done, 0)
    assert done.micro_batch == 2
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_memory_that_does_not_suffice_for_one_stretch_is_one_clear_sentence() -> None:
    done = prepared(config())
    fits(done.model, 0)
    with pytest.raises(InputError, match=r"^out of memory on cpu even with one stretch at a time: lower sampler\.length, .*model\.width"):
        at_once(done, 0)


def test_only_what_is_out_of_memory_counts_as_such() -> None:
    assert ran_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert ran_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5.56 GB, max allowed: 6.80 GB)."))
    done = prepared(config())

    def break_(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    done.model.register_forward_pre_hook(break_)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        at_once(done, 0)


# A training that runs out of memory


def short_of_memory(dataset: Dataset, out: Path, most: int, *extra: str) -> Trainer:
    trainer = Trainer(tiny(dataset, *extra), dataset, out, CPU)
    fits(trainer.model, most)
    return trainer


def test_training_out_of_memory_says_so_once_and_learns_the_same(dataset: Dataset, tmp_path: Path) -> None:
    settings = ("model.dropout=0", "epochs=1")
    train(tiny(dataset, *settings), dataset, tmp_path / "whole", CPU)
    short_of_memory(dataset, tmp_path / "short", 3, *settings).run()
    whole, short = events(tmp_path / "whole"), events(tmp_path / "short")
    assert [(e["step"], e["metrics"]["train/micro_batch"]) for e in short if "train/micro_batch" in e["metrics"]] == [(0, 2.0)]
    assert [e["step"] for e in whole] == [e["step"] for e in short]
    for a, b in zip(whole, short, strict=True):
        wanted = {name: value for name, value in a["metrics"].items() if name.startswith("train/")}
        assert {name: b["metrics"][name] for name in wanted} == pytest.approx(wanted, rel=2e-3)


def test_run_killed_after_it_ran_out_of_memory_resumes_bit_for_bit_with_its_size(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    short_of_memory(dataset, tmp_path / "whole", 3, "epochs=1").run()

    def die(event: training.Event) -> None:
        if event["step"] == 10:
            raise Killed

    trainer = short_of_memory(dataset, tmp_path / "killed", 3, "epochs=1")
    trainer.on_event = die
    with pytest.raises(Killed):
        trainer.run()
    again = Trainer(tiny(dataset, "epochs=1"), dataset, tmp_path / "killed", CPU)  # has memory, and goes on as it began
    assert again.resume() and again.gradients.micro_batch == 2
    again.run()
    assert what_repeats(tmp_path / "killed") == what_repeats(tmp_path / "whole")


def test_memory_that_runs_out_between_two_looks_at_the_loss_is_told_at_once(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(tiny(dataset, "epochs=1"), dataset, tmp_path / "run", CPU)
    taken = trainer._step

    def step(batch: object) -> None:
        if trainer.progress.step == 3:
            fits(trainer.model, 4)
        taken(batch)  # type: ignore[arg-type]

    trainer._step = step  # type: ignore[method-assign, assignment]
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "training" / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if "train/micro_batch" in line["metrics"]]
    assert [(line["step"], line["metrics"]["train/micro_batch"]) for line in told] == [(3, 4.0)]
    assert math.isfinite(told[0]["metrics"]["train/loss"])
