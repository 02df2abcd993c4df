"""The inverter as a decoder: a search for the text whose embedding is nearest to a vector.

The method is that of Morris et al. 2023 (arXiv 2310.06816): write a hypothesis, embed it, and let the corrector
write a better one, given where the hypothesis lies. Candidates are ranked by the cosine between their own
embedding and the target vector. The best of all steps so far are kept, so no step can make a text worse.
"""

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lvm.data.encoders import Encoder, load_encoder
from lvm.data.recipe import EncoderRecipe
from lvm.decoding.inverter.folder import DecoderFolder, load_decoder_folder
from lvm.decoding.inverter.text_writer import TextWriter
from lvm.decoding.protocol import Decoded, require_vectors
from lvm.devices import resolve_dtype
from lvm.errors import InputError

TEMPERATURE = 0.5
"""Temperature of sampled candidates. The likeliest correction of each hypothesis is a candidate too."""


@dataclass(frozen=True)
class Search:
    """Effort of the search."""

    steps: int = 5
    """Number of corrections; 0 keeps the first hypothesis."""

    beam: int = 1
    """Hypotheses kept for each vector from step to step."""

    candidates: int = 8
    """Texts written for each vector in each step."""


@dataclass(frozen=True)
class Candidate:
    """A text that may belong to a target vector."""

    text: str
    vector: np.ndarray = field(compare=False)
    """float32 [D]: the text's embedding."""

    cosine: float
    """Cosine of that embedding to the target."""

    step: int
    """Step in which it was written."""


@dataclass(frozen=True)
class WriteRequest:
    """A text to be written."""

    target: int
    """Index of the target vector."""

    hypothesis: Candidate | None
    """The hypothesis to correct; None in the first step."""

    likeliest: bool
    """Whether to write the likeliest text or to sample one."""


class Inverter:
    """Decodes vectors of `encoder` with the trained network of `writer`."""

    def __init__(self, writer: TextWriter, encoder: Encoder, search: Search = Search()) -> None:
        self.writer, self.encoder, self.search = writer, encoder, search
        self.recipe: EncoderRecipe = encoder.recipe

    @staticmethod
    def load(path: Path, device: str = "cpu", steps: int | None = None, encoder: Encoder | None = None) -> "Inverter":
        """Load the inverter from `path`, a folder written by `lvm train-decoder`; see `load_decoder`."""
        found: DecoderFolder = load_decoder_folder(path, torch.device(device))
        encoder = encoder or load_encoder(found.config.recipe.name, device)
        found.config.recipe.require_same(encoder.recipe, f"decoder {path}")
        if steps is not None and steps < 0:
            raise InputError(f"field 'steps' is {steps}: give 0 or more")
        writer = TextWriter(found.model, found.tokenizer, resolve_dtype(device, "auto"))
        return Inverter(writer, encoder, Search() if steps is None else Search(steps=steps))

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        """See `Decoder.decode`. The same vectors give the same texts on the same machine."""
        vectors = require_vectors(vectors, self.recipe)
        generator = torch.Generator(self.writer.device).manual_seed(0)
        beams: list[list[Candidate]] = [[] for _ in vectors]
        for step in range(self.search.steps + 1 if len(vectors) else 0):
            requests = [request for target, beam in enumerate(beams) for request in self._requests(target, beam)]
            for likeliest in (True, False):
                chosen = [request for request in requests if request.likeliest == likeliest]
                for request, found in zip(chosen, self._write(vectors, chosen, step, generator), strict=True):
                    if found.text not in [other.text for other in beams[request.target]]:
                        beams[request.target].append(found)
            for beam in beams:
                beam.sort(key=lambda candidate: -candidate.cosine)
                del beam[self.search.beam :]
        return [Decoded(beam[0].text, beam[0].cosine, beam[0].step) for beam in beams]

    def _requests(self, target: int, beam: list[Candidate]) -> list[WriteRequest]:
        """What to write for one vector in one step: the candidates are divided among its hypotheses."""
        hypotheses: list[Candidate | None] = [*beam] or [None]
        # Without corrections nothing is sampled: the first hypothesis is the likeliest text.
        count = max(len(hypotheses), self.search.candidates if self.search.steps else 1)
        return [WriteRequest(target, hypotheses[i % len(hypotheses)], i < len(hypotheses)) for i in range(count)]

    def _write(self, vectors: np.ndarray, requests: list[WriteRequest], step: int, generator: torch.Generator) -> list[Candidate]:
        """The requested texts; all `requests` are for the likeliest text, or none is."""
        if not requests:
            return []
        targets = vectors[[request.target for request in requests]]
        # In the first step no request has a hypothesis; later all have one.
        hypotheses = [request.hypothesis for request in requests if request.hypothesis is not None]
        texts = self.writer.write(
            targets,
            [hypothesis.text for hypothesis in hypotheses] or None,
            np.stack([hypothesis.vector for hypothesis in hypotheses]) if hypotheses else None,
            0.0 if requests[0].likeliest else TEMPERATURE,
            generator,
        )
        found = self.encoder.encode(texts)
        cosines = (found * targets).sum(1) / (np.linalg.norm(found, axis=1) * np.linalg.norm(targets, axis=1))
        return [Candidate(text, vector, float(c), step) for text, vector, c in zip(texts, found, cosines, strict=True)]


def shipped(name: str) -> Path:
    """Folder of the decoder that is shipped with this package for the recipe `name`."""
    return Path(str(importlib.resources.files("lvm.decoding.inverter") / name))
