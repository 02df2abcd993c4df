"""The network of the inverter: a T5 that reads vectors as prefix tokens.

Morris et al. 2023, "Text Embeddings Reveal (Almost) As Much As Text" (arXiv 2310.06816), train two
T5s, a hypothesizer p(text | e) and a corrector p(text | e, hypothesis, embedding of the
hypothesis, their difference). Here one T5 does both: without a hypothesis it reads only the prefix tokens of
the target vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

from lvm.config import InverterConfig

PAD, EOS = 0, 1
"""Token ids that the tokenizer reserves. The decoder starts from PAD, as in every T5."""


TIED_TO = "t5.shared.weight"
"""Name under which the embedding matrix is saved, which T5 uses in four places."""


@dataclass(frozen=True)
class Hypothesis:
    """Texts to be corrected, and their embeddings."""

    tokens: torch.Tensor
    """int64 [B, H], PAD after the end."""

    vectors: torch.Tensor
    """float32 [B, D]: embeddings of the texts."""


class InverterModel(nn.Module):
    """A T5 with projections from vectors of dimension `dim` to prefix tokens.

    `mean` [D] and `scale` [] are the mean and the root mean square deviation of the training embeddings. They
    bring the vectors of any encoder to the scale of T5's token embeddings.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    tied = ("t5.encoder.embed_tokens.weight", "t5.decoder.embed_tokens.weight", "t5.lm_head.weight")
    """Other names of `t5.shared.weight` in the state dict."""

    def __init__(self, config: InverterConfig, dim: int) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        self.t5 = T5ForConditionalGeneration(
            T5Config(
                vocab_size=config.vocabulary,
                d_model=config.width,
                d_kv=64,
                num_heads=config.width // 64,
                d_ff=config.feed_forward,
                num_layers=config.encoder_layers,
                num_decoder_layers=config.decoder_layers,
                feed_forward_proj="gated-gelu_pytorch_tanh",  # the formula of gated-gelu, in one kernel
                dropout_rate=config.dropout,
            )
        )
        _fuse_norms(self.t5)
        half = max(1, config.prefix // 2)
        self.target = nn.Linear(dim, config.prefix * config.width)
        self.guess = nn.Linear(dim, half * config.width)
        self.difference = nn.Linear(dim, half * config.width)
        for projection in (self.target, self.guess, self.difference):
            nn.init.normal_(projection.weight, std=dim**-0.5)
            nn.init.zeros_(projection.bias)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load `weights`, a state dict without the `tied` names; `RuntimeError` when they do not fit."""
        shared = {name: weights[TIED_TO] for name in self.tied if TIED_TO in weights}
        self.load_state_dict({**weights, **shared}, assign=True)
        self.t5.tie_weights()

    def encode(self, vectors: torch.Tensor, hypothesis: Hypothesis | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Encoder states [B, M, width], and a mask of those that the decoder attends to (bool [B, M]; None for all)."""
        target = (vectors - self.mean) / self.scale
        parts = [self._tokens(self.target, target)]
        seen = None
        if hypothesis is not None:
            parts += [
                self._tokens(self.guess, (hypothesis.vectors - self.mean) / self.scale),
                self._tokens(self.difference, (vectors - hypothesis.vectors) / self.scale),
                self.t5.shared(hypothesis.tokens),
            ]
            prefix = sum(part.shape[1] for part in parts[:-1])
            seen = F.pad(hypothesis.tokens != PAD, (prefix, 0), value=True)
        states = self.t5.encoder(inputs_embeds=torch.cat(parts, 1), attention_mask=seen).last_hidden_state
        return states, seen

    def forward(self, vectors: torch.Tensor, labels: torch.Tensor, hypothesis: Hypothesis | None = None) -> torch.Tensor:
        """Mean cross-entropy per token of `labels`, int64 [B, L]: tokens, EOS, then PAD."""
        states, seen = self.encode(vectors, hypothesis)
        inputs = F.pad(labels[:, :-1], (1, 0), value=PAD)
        out = self.t5.decoder(input_ids=inputs, encoder_hidden_states=states, encoder_attention_mask=seen, use_cache=False)
        logits = self.t5.lm_head(out.last_hidden_state * self.config.width**-0.5)
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=PAD)

    def _tokens(self, projection: nn.Linear, vectors: torch.Tensor) -> torch.Tensor:
        # float32 even under autocast, so that the residual stream and its norms have one precision.
        return projection(vectors).unflatten(-1, (-1, self.config.width)).float()


def _fuse_norms(t5: T5ForConditionalGeneration) -> None:
    """Replace T5's norm by PyTorch's RMSNorm: the same formula and weight, in one kernel instead of six."""
    for module in list(t5.modules()):
        for name, child in module.named_children():
            if isinstance(child, T5LayerNorm):
                setattr(module, name, nn.RMSNorm(len(child.weight), child.variance_epsilon))
