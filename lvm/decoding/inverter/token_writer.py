"""The T5 decoder written out as one step a token: the same arithmetic, without the general machinery.

`T5ForConditionalGeneration.generate` spends most of its time around the network. Here the
projections that belong together are one matrix, the norms' gains are part of the matrices behind
them, keys and values of the memory are computed once, their own go into one buffer, and rows that
have ended leave the batch. On CUDA a step is recorded once for each of the few shapes that it meets
and replayed for every token, as launching some sixty kernels takes longer than running them. A test
holds the tokens equal to `generate`'s.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from lvm.decoding.inverter.model import EOS, PAD

LOOK_EVERY = 8
"""Steps between looks at which rows have ended: each look waits for the device."""


SPAN = 32
"""Keys are attended to by so many at a time, those to come masked out: few shapes, and no slower than fewer keys."""


@dataclass
class Desk:
    """Buffers for writing up to R texts with up to M states of memory each."""

    token: torch.Tensor
    """int64 [R]: the last one of each text."""

    position: torch.Tensor
    """int64 [1]: where the next one goes."""

    mask: torch.Tensor
    """[R, 1, 1, M]: what is added to the scores of the memory."""

    own: list[torch.Tensor]
    """Keys and values of each layer, [R, 2, heads, limit, width / heads]."""

    memory: list[torch.Tensor]
    """Likewise those of the memory, [R, 2, heads, M, width / heads]."""

    length: int = 0
    """States of memory that the texts of this time have."""

    recorded: dict[tuple[int, int, int], tuple[torch.cuda.CUDAGraph, torch.Tensor]] = field(default_factory=dict)
    """By rows, states and keys: a step, and the logits that replaying it fills."""

    def keep(self, rows: torch.Tensor) -> None:
        """Move the texts `rows`, int64 [n] and ascending, to the front."""
        for buffer in (self.token, self.mask, *self.own, *self.memory):
            buffer[: len(rows)] = buffer[rows]


class TokenWriter:
    """Writes token sequences from the encoder's states, with the weights of `t5` as they are now, in `dtype`."""

    def __init__(self, t5: T5ForConditionalGeneration, dtype: torch.dtype, limit: int) -> None:
        config = t5.config
        self.heads, self.width, self.limit = config.num_heads, config.d_model, limit
        self.dtype, self.device = dtype, t5.device
        self.smallest = config.layer_norm_epsilon**0.5 * self.width**0.5
        self.desk: Desk | None = None
        self.root = self.width**0.5

        def behind(norm: Any, *weights: torch.Tensor) -> torch.Tensor:
            """Matrices of one input as one, with the gain of the norm before them."""
            return (torch.cat([w.detach() for w in weights]) * norm.weight.detach() * self.root).to(dtype)

        def cast(weight: torch.Tensor) -> torch.Tensor:
            return weight.detach().to(dtype)

        decoder: Any = t5.decoder
        self.embedding = cast(t5.shared.weight)
        # T5 scales its states before the output matrix, which is the input embedding too.
        self.output = behind(decoder.final_layer_norm, t5.lm_head.weight * self.width**-0.5)
        self.layers = []
        for block in decoder.block:
            own, other, feed = block.layer
            attention, memory, gate = own.SelfAttention, other.EncDecAttention, feed.DenseReluDense
            self.layers.append({
                "qkv": behind(own.layer_norm, attention.q.weight, attention.k.weight, attention.v.weight),
                "own_out": cast(attention.o.weight),
                "query": behind(other.layer_norm, memory.q.weight),
                "memory": cast(torch.cat([memory.k.weight, memory.v.weight])),
                "memory_out": cast(memory.o.weight),
                "gate": behind(feed.layer_norm, gate.wi_0.weight, gate.wi_1.weight),
                "feed_out": cast(gate.wo.weight),
            })  # fmt: skip
        bias = decoder.block[0].layer[0].SelfAttention.compute_bias(limit, limit)[0].detach()
        ahead = torch.ones(limit, limit, dtype=torch.bool, device=self.device).triu(1)
        self.bias = bias.masked_fill(ahead, torch.finfo(dtype).min).to(dtype)
        """[heads, limit, limit]: what a query adds to the score of a key, by distance; keys ahead do not count."""

    @torch.inference_mode()
    def __call__(
        self, states: torch.Tensor, seen: torch.Tensor | None, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Write one sequence for each row of `states` [B, M, width]; int64 [B, limit], PAD after EOS.

        `seen`, bool [B, M], says which states count. Temperature 0 takes the likeliest token, any
        other samples from the distribution at that temperature.
        """
        desk = self._desk(states, seen)
        out = torch.full((len(states), self.limit), PAD, device=self.device)
        texts = torch.arange(len(states), device=self.device)
        for step in range(self.limit):
            logits = self._logits(desk, self._rows(len(texts)), step)[: len(texts)]
            token = self._choose(logits, temperature, generator)
            desk.token[: len(texts)] = token
            out[texts, step] = token
            if step % LOOK_EVERY == LOOK_EVERY - 1:
                going = (out[texts] != EOS).all(1).nonzero().squeeze(1)
                if not len(going):
                    break
                if self._rows(len(going)) <= 0.8 * self._rows(len(texts)):
                    texts = texts[going]
                    desk.keep(going)
        ended = (out == EOS).cumsum(1)
        return out.masked_fill((ended > 0) & ~((ended == 1) & (out == EOS)), PAD)

    def _rows(self, count: int) -> int:
        """Rows of a step that writes `count` texts; on CUDA a power of two, as each number is a recording."""
        return 1 << (count - 1).bit_length() if self.device.type == "cuda" else count

    def _desk(self, states: torch.Tensor, seen: torch.Tensor | None) -> Desk:
        """Buffers with the keys and values of `states` in them, and the first token of every text."""
        batch, reach = states.shape[:2]
        # Only hypotheses differ in length; a memory without one is the prefix alone.
        length = reach if seen is None else -(-reach // SPAN) * SPAN
        desk, rows = self.desk, self._rows(batch)
        if desk is None or len(desk.token) < rows or desk.mask.shape[-1] < length:
            most = (0, 0) if desk is None else (len(desk.token), desk.mask.shape[-1])
            desk = self._new_desk(max(most[0], rows), max(most[1], length))
        # On the CPU nothing is recorded, so nothing is kept either.
        self.desk = desk if self.device.type == "cuda" else None
        desk.length = length
        hidden = torch.zeros(batch, reach, dtype=self.dtype, device=self.device)
        desk.mask.fill_(torch.finfo(self.dtype).min)
        desk.mask[:batch, 0, 0, :reach] = hidden if seen is None else hidden.masked_fill(~seen, torch.finfo(self.dtype).min)
        for layer, memory in zip(self.layers, desk.memory, strict=True):
            pairs = F.linear(states.to(self.dtype), layer["memory"]).unflatten(-1, (2, self.heads, -1))
            memory[:batch, :, :, :reach] = pairs.permute(0, 2, 3, 1, 4)
        desk.token.fill_(PAD)
        return desk

    def _new_desk(self, rows: int, length: int) -> Desk:
        def buffers(keys: int) -> list[torch.Tensor]:
            # Zeros, since what is masked out still has to be a number.
            shape = (rows, 2, self.heads, keys, self.width // self.heads)
            return [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in self.layers]

        token, position = (torch.zeros(n, dtype=torch.int64, device=self.device) for n in (rows, 1))
        mask = torch.zeros(rows, 1, 1, length, dtype=self.dtype, device=self.device)
        return Desk(token, position, mask, buffers(self.limit), buffers(length))

    def _logits(self, desk: Desk, rows: int, step: int) -> torch.Tensor:
        """Logits [rows, vocabulary] of the tokens at position `step`; on CUDA they are overwritten by the next ones."""
        desk.position.fill_(step)
        span = min(self.limit, (step // SPAN + 1) * SPAN)
        if self.device.type != "cuda":
            return self._step(desk, rows, span)
        shape = (rows, desk.length, span)
        if shape not in desk.recorded:
            desk.recorded[shape] = self._record(desk, rows, span)
        graph, logits = desk.recorded[shape]
        graph.replay()
        return logits

    def _record(self, desk: Desk, rows: int, span: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """A step that can be replayed: it reads and writes the same places every time."""
        aside = torch.cuda.Stream(self.device)
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside):
            self._step(desk, rows, span)  # libraries set themselves up outside the recording
        torch.cuda.current_stream(self.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Another thread may be embedding texts on the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits = self._step(desk, rows, span)
        return graph, logits

    def _step(self, desk: Desk, rows: int, span: int) -> torch.Tensor:
        """Logits [rows, vocabulary] of the tokens after `desk.token`, at `desk.position`, below `span`; fills `desk.own`."""
        x = self.embedding[desk.token[:rows]]
        bias = self.bias[None, :, :, :span].index_select(2, desk.position)
        mask = desk.mask[:rows, :, :, : desk.length]
        for layer, own, memory in zip(self.layers, desk.own, desk.memory, strict=True):
            projected = F.linear(self._norm(x), layer["qkv"]).view(rows, 3, self.heads, 1, -1)
            own[:rows].index_copy_(3, desk.position, projected[:, 1:])
            x = self._attend(x, projected[:, 0], own[:rows, :, :, :span], bias, layer["own_out"])
            query = F.linear(self._norm(x), layer["query"]).view(rows, self.heads, 1, -1)
            x = self._attend(x, query, memory[:rows, :, :, : desk.length], mask, layer["memory_out"])
            gate, up = F.linear(self._norm(x), layer["gate"]).chunk(2, -1)
            x = torch.addmm(x, F.gelu(gate, approximate="tanh") * up, layer["feed_out"].T)
        logits = F.linear(self._norm(x), self.output)
        logits[:, PAD] = -torch.inf
        return logits

    @staticmethod
    def _attend(x: torch.Tensor, query: torch.Tensor, pair: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """`x` [b, width] and what `query` [b, heads, 1, d] finds in the keys and values `pair` [b, 2, heads, n, d]."""
        # T5 does not scale the product: its initialisation does.
        found = F.scaled_dot_product_attention(query, pair[:, 0], pair[:, 1], attn_mask=bias, scale=1.0)
        return torch.addmm(x, found.reshape(len(x), -1), out.T)

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [b, width] at length 1: T5's norm but for its gain and the root of the width, which the matrices hold."""
        return F.normalize(x, dim=-1, eps=self.smallest)

    @staticmethod
    def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
        if temperature == 0:
            return logits.max(-1).indices
        # The Gumbel-max trick: adding such noise to log-probabilities and taking the best samples from them.
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
        return (logits.float() / temperature - (-uniform.clamp_min(1e-20).log()).log()).max(-1).indices
