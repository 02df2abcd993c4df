"""The loss of one batch and its gradients, compiled on CUDA; and the noise on the vectors that are learned from."""

from typing import Any

import torch

from lvm.decoding.inverter.model import EOS, Hypothesis, InverterModel
from lvm.decoding.inverter.pool import round_up

COMPILE: dict[str, Any] = {"triton.mix_order_reduction": False, "triton.coalesce_tiling_analysis": False}
"""Features of the compiler that are switched off, since PyTorch 2.11 fails with them on sequences of any length: the first writes
an index without its parentheses, the second fails an assertion."""


class InverterLoss:
    """Computes the loss of `model` (see `InverterModel.forward`) and its gradients, on CUDA in bfloat16."""

    def __init__(self, model: InverterModel) -> None:
        self.model, self.device = model, model.mean.device
        # A step is bound by memory traffic and kernel launches. Compiling halves both; on a CPU it would take hours to pay off.
        self._forward = torch.compile(model.forward, options=COMPILE) if self.device.type == "cuda" else model.forward

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def __call__(self, vectors: torch.Tensor, labels: torch.Tensor, hypothesis: Hypothesis | None) -> torch.Tensor:
        """The loss of a batch; its gradients are left in the parameters."""
        if self.device.type == "cuda":  # one compiled graph for all lengths
            for tokens in (labels,) if hypothesis is None else (labels, hypothesis.tokens):
                torch._dynamo.mark_dynamic(tokens, 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            loss: torch.Tensor = self._forward(vectors, labels, hypothesis)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        return loss

    def compile(self, batch: int) -> None:
        """Compile what a step computes on CUDA, for texts of every length, with and without hypotheses.

        Everything is compiled now. While PyTorch compiles, it replaces how modules are called, in other threads
        too, and the encoder, which runs in one, would fail. A shape that needs another graph is computed
        without compilation.
        """
        if self.device.type != "cuda":
            return
        torch.compiler.set_stance("default")  # an earlier training in this process has left the other stance
        longest = round_up(self.model.config.max_tokens)
        for length in (longest, round_up(1)):
            labels, tokens = (torch.full((batch, length), EOS, device=self.device) for _ in range(2))
            vectors = self.model.mean.expand(batch, -1).clone()
            for hypothesis in (None, Hypothesis(tokens, vectors.clone())):
                self(vectors, labels, hypothesis)
        self.model.zero_grad(set_to_none=True)
        torch.compiler.set_stance("eager_on_recompile")


def add_noise(vectors: torch.Tensor, greatest: float) -> torch.Tensor:
    """`vectors` [B, D] with Gaussian noise added.

    Relative to its vector, the noise has a random length of about `greatest` at most; short noise is more common.
    """
    reach = greatest * torch.rand(len(vectors), 1, device=vectors.device).square()
    return vectors + reach * vectors.norm(dim=1, keepdim=True) * torch.randn_like(vectors) / vectors.shape[1] ** 0.5
