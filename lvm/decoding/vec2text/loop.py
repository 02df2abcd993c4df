"""vec2text's own correction loop with our encoder. Importing this module imports vec2text."""

import math
from types import SimpleNamespace
from typing import Any

import torch

from lvm.data.encoders import Encoder
from lvm.decoding.protocol import Decoded
from lvm.decoding.vec2text.repairs import import_vec2text

vec2text = import_vec2text()


class CorrectionLoop(vec2text.trainers.Corrector):  # type: ignore[misc, name-defined]
    """The library's `Corrector` without its `Trainer`, since decoding needs only the loop.

    `Trainer.__init__` is not called: it would download metrics, create a folder in the working directory and
    choose the device itself. Every text that the loop considers, in all beams of all steps, passes through
    `embed_generated_hypothesis`. The best text of each vector is kept in the loop itself, so only one caller may
    use it at a time.
    """

    def __init__(self, inversion: Any, corrector: Any | None, encoder: Encoder) -> None:
        self.model = inversion if corrector is None else corrector
        self.inversion_trainer = SimpleNamespace(model=inversion, generate=inversion.generate)
        self.tokenizer = inversion.tokenizer
        self.gen_kwargs = {"early_stopping": False, "num_beams": 1, "do_sample": False, "no_repeat_ngram_size": 0}  # its defaults
        self.num_gen_recursive_steps = 1
        self.sequence_beam_width = 1
        self.initial_hypothesis_str = None
        self._encoder = encoder

    @torch.no_grad()
    def invert(self, vectors: torch.Tensor, steps: int, beam: int) -> list[Decoded]:
        """Decode [n, dim] with `steps` corrections of `beam` hypotheses each; 0 steps uses the inversion model alone."""
        self._start(vectors)
        if steps == 0:
            self._offer(vec2text.invert_embeddings(vectors, self))
        else:
            vec2text.invert_embeddings(vectors, self, num_steps=steps, sequence_beam_width=beam if beam > 1 else 0)
        return self._best

    def _start(self, vectors: torch.Tensor) -> None:
        self._targets, self._step = vectors, 0
        self._best = [Decoded("", -math.inf, 0)] * len(vectors)

    def embed_generated_hypothesis(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Called by the library: embed its hypotheses [n * beams, tokens], ordered by vector."""
        return self._offer(self.tokenizer.batch_decode(input_ids, skip_special_tokens=True))

    def _offer(self, texts: list[str]) -> torch.Tensor:
        """Embed the candidates of one step, k for each vector in turn; keep those that are better than all earlier ones."""
        embedded = torch.from_numpy(self._encoder.encode(texts)).to(self._targets.device)
        beams = len(texts) // len(self._targets)
        cosines = torch.nn.functional.cosine_similarity(embedded, self._targets.repeat_interleave(beams, dim=0), dim=1)
        values, places = cosines.reshape(-1, beams).max(1)
        for row, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            if value > self._best[row].roundtrip_cosine:
                self._best[row] = Decoded(texts[row * beams + place], value, self._step)
        self._step += 1
        return embedded
