"""Each member of an ensemble learns from batches of its own, and they predict together."""

from pathlib import Path

import torch

from lvm.config import ModelConfig
from lvm.data.dataset import Dataset
from lvm.models import Ensemble, build_predictor
from lvm.models.checkpoint import load_checkpoint
from lvm.training.trainer import Trainer, train
from tests.support.trainings import tiny, train_once, what_repeats

DIM = 12
CPU = torch.device("cpu")


def ensemble() -> Ensemble:
    torch.manual_seed(0)
    config = ModelConfig(arch="lstm", dim=DIM, width=64, members=3, dropout=0)
    model = build_predictor(config, torch.randn(DIM), torch.rand(DIM) + 0.5)
    assert isinstance(model, Ensemble)
    for weight in model.parameters():  # heads start at zero, where all members would be one
        torch.nn.init.normal_(weight, std=0.1)
    return model


def test_its_prediction_has_the_direction_of_its_members_mean_and_the_mean_of_their_lengths() -> None:
    model, context = ensemble().eval(), torch.randn(2, 5, DIM)
    predictions = [member(context) for member in model.members]
    found = model(context)
    apart = torch.stack([prediction.decoder for prediction in predictions])
    torch.testing.assert_close(found.decoder.norm(dim=-1), apart.norm(dim=-1).mean(0))
    mean = apart.mean(0)
    torch.testing.assert_close(found.decoder / found.decoder.norm(dim=-1, keepdim=True), mean / mean.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(found.cosine.norm(dim=-1), torch.ones(2, 5))
    together = torch.stack([prediction.cosine for prediction in predictions]).sum(0)
    torch.testing.assert_close(found.cosine, together / together.norm(dim=-1, keepdim=True))
    y_dec, y_cos = model(context, return_both=True)
    torch.testing.assert_close((y_dec, y_cos), (found.decoder[:, -1], found.cosine[:, -1]), atol=1e-6, rtol=1e-5)


def test_a_batch_trains_the_member_whose_turn_it_is_and_no_other() -> None:
    model, context = ensemble().train(), torch.randn(2, 5, DIM)
    for turn in (0, 2, 4):
        model.turn = turn
        model.zero_grad(set_to_none=True)
        found = model(context)
        assert torch.equal(found.decoder, model.members[turn % 3](context).decoder)
        (found.decoder.sum() + found.cosine.sum()).backward()
        assert [member.trunk.rnn.weight_hh_l0.grad is not None for member in model.members] == [n == turn % 3 for n in range(3)]


def test_a_trained_ensemble_reloads_and_its_members_differ(dataset: Dataset) -> None:
    model = load_checkpoint(train_once(dataset, tiny(dataset, "model.members=2")), CPU).model
    assert isinstance(model, Ensemble)
    first, second = (member.decoder_residual.fc2.weight for member in model.members)
    assert first.abs().max() > 0 and second.abs().max() > 0 and not torch.equal(first, second)


def test_an_ensemble_resumes_with_the_member_whose_turn_was_next(dataset: Dataset, tmp_path: Path) -> None:
    config = tiny(dataset, "model.members=2")
    trainer = Trainer(config, dataset, tmp_path / "halved", CPU)
    steps = iter(trainer.sampler.epoch(0))
    trainer.model.train()
    trainer._step(next(steps))
    trainer.progress.step = trainer.progress.epoch_step = 1
    trainer.save_state()
    train(config, dataset, tmp_path / "halved", CPU, resume=True)
    assert what_repeats(tmp_path / "halved") == what_repeats(train_once(dataset, config))
