"""Fast token generation for T5: its decoder's arithmetic written out, one step a token.

`T5ForConditionalGeneration.generate` spends most of its time outside the network. Here projections of the same
input are one matrix, the gains of the norms are folded into the matrices after them, the keys and values of the
encoder's states are computed once, those of the tokens are kept in one buffer, and finished texts leave the
batch. On CUDA a step is recorded once for each of a few shapes and replayed for every token, since launching its
60 or so kernels takes longer than running them. A test checks that the tokens equal those of `generate`.

"Memory" means the encoder's states, which every step attends to.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from lvm.decoding.inverter.model import EOS, PAD

LOOK_EVERY = 8
"""Steps between checks for finished texts: each check waits for the device."""


SPAN = 32
"""The number of keys attended to is a multiple of this, with later ones masked out: few shapes, at no loss of speed."""


@dataclass
class GenerationBuffers:
    """GenerationBuffers for writing up to R texts at once, with up to M states of memory each."""

    token: torch.Tensor
    """int64 [R]: the last token of each text."""

    position: torch.Tensor
    """int64 [1]: position of the next token."""

    mask: torch.Tensor
    """[R, 1, 1, M]: added to the attention scores of the memory."""

    own: list[torch.Tensor]
    """For each layer, keys and values of the tokens: [R, 2, heads, limit, width / heads]."""

    memory: list[torch.Tensor]
    """For each layer, keys and values of the memory: [R, 2, heads, M, width / heads]."""

    length: int = 0
    """States of memory that the present texts have."""

    recorded: dict[tuple[int, int, int], tuple[torch.cuda.CUDAGraph, torch.Tensor]] = field(default_factory=dict)
    """By number of rows, states and keys: a recorded step, and the logits that replaying it fills."""

    def keep(self, rows: torch.Tensor) -> None:
        """Move the texts `rows`, int64 [n] in ascending order, to the front."""
        for buffer in (self.token, self.mask, *self.own, *self.memory):
            buffer[: len(rows)] = buffer[rows]


class TokenWriter:
    """Writes token sequences from encoder states, with the present weights of `t5`, in `dtype`."""

    def __init__(self, t5: T5ForConditionalGeneration, dtype: torch.dtype, limit: int) -> None:
        config = t5.config
        self.heads, self.width, self.limit = config.num_heads, config.d_model, limit
        self.dtype, self.device = dtype, t5.device
        self.smallest = config.layer_norm_epsilon**0.5 * self.width**0.5
        self.buffers: GenerationBuffers | None = None
        self.root = self.width**0.5

        def behind(norm: Any, *weights: torch.Tensor) -> torch.Tensor:
            """Matrices with the same input as one matrix that includes the gain of the norm before them."""
            return (torch.cat([w.detach() for w in weights]) * norm.weight.detach() * self.root).to(dtype)

        def cast(weight: torch.Tensor) -> torch.Tensor:
            return weight.detach().to(dtype)

        decoder: Any = t5.decoder
        self.embedding = cast(t5.shared.weight)
        # T5 scales its states before the output matrix, which is also its input embedding.
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
        """[heads, limit, limit]: relative position bias of each query and key; later keys are masked out."""

    @torch.inference_mode()
    def __call__(
        self, states: torch.Tensor, seen: torch.Tensor | None, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Write one sequence for each row of `states` [B, M, width]; int64 [B, limit], PAD after EOS.

        `seen`, bool [B, M], marks the states that count; None means all. Temperature 0 takes the likeliest token;
        any other samples from the distribution at that temperature.
        """
        buffers = self._filled_buffers(states, seen)
        out = torch.full((len(states), self.limit), PAD, device=self.device)
        texts = torch.arange(len(states), device=self.device)
        for step in range(self.limit):
            logits = self._logits(buffers, self._rows(len(texts)), step)[: len(texts)]
            token = self._choose(logits, temperature, generator)
            buffers.token[: len(texts)] = token
            out[texts, step] = token
            if step % LOOK_EVERY == LOOK_EVERY - 1:
                going = (out[texts] != EOS).all(1).nonzero().squeeze(1)
                if not len(going):
                    break
                if self._rows(len(going)) <= 0.8 * self._rows(len(texts)):
                    texts = texts[going]
                    buffers.keep(going)
        ended = (out == EOS).cumsum(1)
        return out.masked_fill((ended > 0) & ~((ended == 1) & (out == EOS)), PAD)

    def _rows(self, count: int) -> int:
        """Rows of a step that writes `count` texts; on CUDA a power of two, since every number of rows needs a recording."""
        return 1 << (count - 1).bit_length() if self.device.type == "cuda" else count

    def _filled_buffers(self, states: torch.Tensor, seen: torch.Tensor | None) -> GenerationBuffers:
        """GenerationBuffers filled with the keys and values of `states` and the first token of every text."""
        batch, reach = states.shape[:2]
        # Only hypotheses differ in length; without one the memory is just the prefix.
        length = reach if seen is None else -(-reach // SPAN) * SPAN
        buffers, rows = self.buffers, self._rows(batch)
        if buffers is None or len(buffers.token) < rows or buffers.mask.shape[-1] < length:
            most = (0, 0) if buffers is None else (len(buffers.token), buffers.mask.shape[-1])
            buffers = self._new_buffers(max(most[0], rows), max(most[1], length))
        # On the CPU nothing is recorded, so no buffer has to be kept.
        self.buffers = buffers if self.device.type == "cuda" else None
        buffers.length = length
        hidden = torch.zeros(batch, reach, dtype=self.dtype, device=self.device)
        buffers.mask.fill_(torch.finfo(self.dtype).min)
        buffers.mask[:batch, 0, 0, :reach] = hidden if seen is None else hidden.masked_fill(~seen, torch.finfo(self.dtype).min)
        for layer, memory in zip(self.layers, buffers.memory, strict=True):
            pairs = F.linear(states.to(self.dtype), layer["memory"]).unflatten(-1, (2, self.heads, -1))
            memory[:batch, :, :, :reach] = pairs.permute(0, 2, 3, 1, 4)
        buffers.token.fill_(PAD)
        return buffers

    def _new_buffers(self, rows: int, length: int) -> GenerationBuffers:
        def buffers(keys: int) -> list[torch.Tensor]:
            # Zeros, since masked entries must still be finite.
            shape = (rows, 2, self.heads, keys, self.width // self.heads)
            return [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in self.layers]

        token, position = (torch.zeros(n, dtype=torch.int64, device=self.device) for n in (rows, 1))
        mask = torch.zeros(rows, 1, 1, length, dtype=self.dtype, device=self.device)
        return GenerationBuffers(token, position, mask, buffers(self.limit), buffers(length))

    def _logits(self, buffers: GenerationBuffers, rows: int, step: int) -> torch.Tensor:
        """Logits [rows, vocabulary] of the tokens at position `step`. On CUDA the next step overwrites them."""
        buffers.position.fill_(step)
        span = min(self.limit, (step // SPAN + 1) * SPAN)
        if self.device.type != "cuda":
            return self._step(buffers, rows, span)
        shape = (rows, buffers.length, span)
        if shape not in buffers.recorded:
            buffers.recorded[shape] = self._record(buffers, rows, span)
        graph, logits = buffers.recorded[shape]
        graph.replay()
        return logits

    def _record(self, buffers: GenerationBuffers, rows: int, span: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Record a step for replaying: it reads and writes the same memory every time."""
        aside = torch.cuda.Stream(self.device)
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside):
            self._step(buffers, rows, span)  # libraries must initialise outside the recording
        torch.cuda.current_stream(self.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Another thread may be embedding texts on the same device.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits = self._step(buffers, rows, span)
        return graph, logits

    def _step(self, buffers: GenerationBuffers, rows: int, span: int) -> torch.Tensor:
        """Logits [rows, vocabulary] of the next tokens, at `buffers.position` < `span`; adds to `buffers.own`."""
        x = self.embedding[buffers.token[:rows]]
        bias = self.bias[None, :, :, :span].index_select(2, buffers.position)
        mask = buffers.mask[:rows, :, :, : buffers.length]
        for layer, own, memory in zip(self.layers, buffers.own, buffers.memory, strict=True):
            projected = F.linear(self._norm(x), layer["qkv"]).view(rows, 3, self.heads, 1, -1)
            own[:rows].index_copy_(3, buffers.position, projected[:, 1:])
            x = self._attend(x, projected[:, 0], own[:rows, :, :, :span], bias, layer["own_out"])
            query = F.linear(self._norm(x), layer["query"]).view(rows, self.heads, 1, -1)
            x = self._attend(x, query, memory[:rows, :, :, : buffers.length], mask, layer["memory_out"])
            gate, up = F.linear(self._norm(x), layer["gate"]).chunk(2, -1)
            x = torch.addmm(x, F.gelu(gate, approximate="tanh") * up, layer["feed_out"].T)
        logits = F.linear(self._norm(x), self.output)
        logits[:, PAD] = -torch.inf
        return logits

    @staticmethod
    def _attend(x: torch.Tensor, query: torch.Tensor, pair: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """`x` [b, width] plus the attention of `query` [b, heads, 1, d] over the keys and values `pair` [b, 2, heads, n, d]."""
        # T5 does not scale the scores; its initialisation accounts for that.
        found = F.scaled_dot_product_attention(query, pair[:, 0], pair[:, 1], attn_mask=bias, scale=1.0)
        return torch.addmm(x, found.reshape(len(x), -1), out.T)

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [b, width] scaled to length 1: T5's norm without its gain and the root of the width, which are in the matrices."""
        return F.normalize(x, dim=-1, eps=self.smallest)

    @staticmethod
    def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
        if temperature == 0:
            return logits.max(-1).indices
        # The Gumbel-max trick: the largest of log-probabilities plus Gumbel noise is a sample from the distribution.
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
        return (logits.float() / temperature - (-uniform.clamp_min(1e-20).log()).log()).max(-1).indices
