"""The optimizers of an inverter."""

import torch

from lvm.config import DecoderTrainConfig
from lvm.decoding.inverter.model import InverterModel
from lvm.decoding.inverter.muon import StackedMuon


def make_optimizers(model: InverterModel, config: DecoderTrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers; AdamW for embeddings, gains and biases."""
    lookups = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    matrices = [w for w in model.parameters() if w.ndim == 2 and id(w) not in lookups]
    others = [w for w in model.parameters() if w.ndim != 2 or id(w) in lookups]
    rate, decay = config.learning_rate, config.weight_decay
    return [
        StackedMuon(matrices, rate, decay),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.98), fused=model.mean.device.type == "cuda"),
    ]
