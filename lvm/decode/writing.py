"""The T5 decoder written out as one step a token: the same arithmetic, without the general machinery.

`T5ForConditionalGeneration.generate` spends most of its time around the network. Here the
projections that belong together are one matrix, keys and values of the memory are computed once,
their own go into one buffer, and rows that have ended leave the batch. A test holds the tokens
equal to `generate`'s.
"""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from lvm.decode.model import EOS, PAD

COMPACT_EVERY = 8
"""Steps between looks at which rows have ended: each look waits for the device."""


class TokenWriter:
    """Writes token sequences from the encoder's states, with the weights of `t5` as they are now, in `dtype`."""

    def __init__(self, t5: T5ForConditionalGeneration, dtype: torch.dtype, limit: int) -> None:
        config = t5.config
        self.heads, self.width, self.limit, self.eps = config.num_heads, config.d_model, limit, config.layer_norm_epsilon
        self.dtype, self.device = dtype, t5.device

        def cast(*weights: torch.Tensor) -> torch.Tensor:
            return torch.cat([w.detach() for w in weights]).to(dtype)

        self.embedding = cast(t5.shared.weight)
        # T5 scales its states before the output matrix, which is the input embedding too.
        self.output = (t5.lm_head.weight.detach() * self.width**-0.5).to(dtype)
        self.final_norm = cast(t5.decoder.final_layer_norm.weight)
        self.layers = []
        blocks: Any = t5.decoder.block
        for block in blocks:
            own, other, feed = block.layer
            attention, memory, gate = own.SelfAttention, other.EncDecAttention, feed.DenseReluDense
            self.layers.append({
                "norm_own": cast(own.layer_norm.weight),
                "qkv": cast(attention.q.weight, attention.k.weight, attention.v.weight),
                "own_out": cast(attention.o.weight),
                "norm_memory": cast(other.layer_norm.weight),
                "query": cast(memory.q.weight),
                "memory": cast(memory.k.weight, memory.v.weight),
                "memory_out": cast(memory.o.weight),
                "norm_feed": cast(feed.layer_norm.weight),
                "gate": cast(gate.wi_0.weight, gate.wi_1.weight),
                "feed_out": cast(gate.wo.weight),
            })  # fmt: skip
        bias = blocks[0].layer[0].SelfAttention.compute_bias(limit, limit)
        self.bias = bias[0].detach().to(dtype)
        """[heads, limit, limit]: what a query adds to the score of a key, by distance."""

    @torch.inference_mode()
    def __call__(
        self, states: torch.Tensor, seen: torch.Tensor | None, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Write one sequence for each row of `states` [B, M, width]; int64 [B, limit], PAD after EOS.

        `seen`, bool [B, M], says which states count. Temperature 0 takes the likeliest token, any
        other samples from the distribution at that temperature.
        """
        batch, dtype = len(states), self.dtype
        states = states.to(dtype)
        hidden = torch.zeros(batch, states.shape[1], dtype=dtype, device=self.device)
        mask = (hidden if seen is None else hidden.masked_fill(~seen, torch.finfo(dtype).min))[:, None, None]
        # [2, b, heads, M, width / heads]: keys and values of the memory, for each layer.
        memory = [F.linear(states, layer["memory"]).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4) for layer in self.layers]
        shape = (batch, 2, self.heads, self.limit, self.width // self.heads)
        own = [torch.empty(shape, dtype=dtype, device=self.device) for _ in self.layers]
        out = torch.full((batch, self.limit), PAD, device=self.device)
        rows = torch.arange(batch, device=self.device)
        token = torch.full((batch,), PAD, device=self.device)
        ended = torch.zeros(batch, dtype=torch.bool, device=self.device)
        for step in range(self.limit):
            logits = self._step(token, step, own, memory, mask)
            token = self._choose(logits, temperature, generator).masked_fill(ended, PAD)
            out[rows, step] = token
            ended |= token == EOS
            if step % COMPACT_EVERY == COMPACT_EVERY - 1:
                going = (~ended).nonzero().squeeze(1)
                if not len(going):
                    break
                if len(going) <= 0.8 * len(rows):
                    rows, token, mask, ended = rows[going], token[going], mask[going], ended[going]
                    own = [cache[going] for cache in own]
                    memory = [pair[:, going] for pair in memory]
        return out

    def _step(
        self, token: torch.Tensor, step: int, own: list[torch.Tensor], memory: list[torch.Tensor], mask: torch.Tensor
    ) -> torch.Tensor:
        """Logits [b, vocabulary] of the token after `token` [b], the one at position `step`; fills the buffers `own`."""
        x = self.embedding[token]
        bias = self.bias[None, :, step : step + 1, : step + 1]
        for layer, cache, (key, value) in zip(self.layers, own, memory, strict=True):
            projected = F.linear(self._norm(x, layer["norm_own"]), layer["qkv"]).view(len(x), 3, self.heads, -1)
            cache[:, :, :, step] = projected[:, 1:]
            before = cache[:, :, :, : step + 1]
            x = self._attend(x, projected[:, 0], before[:, 0], before[:, 1], bias, layer["own_out"])
            query = F.linear(self._norm(x, layer["norm_memory"]), layer["query"]).view(len(x), self.heads, -1)
            x = self._attend(x, query, key, value, mask, layer["memory_out"])
            gate, up = F.linear(self._norm(x, layer["norm_feed"]), layer["gate"]).chunk(2, -1)
            x = torch.addmm(x, F.gelu(gate, approximate="tanh") * up, layer["feed_out"].T)
        return F.linear(self._norm(x, self.final_norm), self.output)

    @staticmethod
    def _attend(
        x: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, out: torch.Tensor
    ) -> torch.Tensor:
        """`x` [b, width] and what `query` [b, heads, d] finds in `key` and `value` [b, heads, n, d]."""
        # T5 does not scale the product: its initialisation does.
        found = F.scaled_dot_product_attention(query[:, :, None], key, value, attn_mask=bias, scale=1.0)
        return torch.addmm(x, found.reshape(len(x), -1), out.T)

    def _norm(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (self.width,), gain, self.eps)

    @staticmethod
    def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
        logits = logits.float()
        logits[:, PAD] = -torch.inf
        if temperature == 0:
            return logits.argmax(-1)
        # The Gumbel-max trick: adding such noise to log-probabilities and taking the best samples from them.
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
        return (logits / temperature - (-uniform.clamp_min(1e-20).log()).log()).argmax(-1)
