"""The inverter: vectors back to text for any encoder, by hypotheses, re-embedding and correction.

The method of Morris et al. 2023 (arXiv 2310.06816): write a hypothesis, embed it, and let the
corrector write a better one from where the hypothesis lies. Candidates are scored by the
cosine of their own embedding to the vector that is sought, and the best are kept, those of earlier
steps among them, so that no step can make a text worse.
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
"""Of sampled candidates. Each hypothesis also gets its likeliest correction."""


@dataclass(frozen=True)
class Search:
    """How hard to look for a text."""

    steps: int = 5
    """Corrections; 0 keeps the first hypothesis."""

    beam: int = 1
    """Hypotheses that each vector keeps from step to step."""

    candidates: int = 8
    """Texts written for each vector in each step."""


@dataclass(frozen=True)
class Candidate:
    """A text for a vector."""

    text: str
    vector: np.ndarray = field(compare=False)
    """float32 [D]: where it lies."""

    cosine: float
    """To the vector that is sought."""

    step: int


@dataclass(frozen=True)
class Job:
    """A text to be written: for which vector, from which hypothesis, the likeliest or a sampled one."""

    number: int
    parent: Candidate | None
    likeliest: bool


class Inverter:
    """Decodes vectors of `encoder` with a trained network."""

    def __init__(self, writer: TextWriter, encoder: Encoder, search: Search = Search()) -> None:
        self.writer, self.encoder, self.search = writer, encoder, search
        self.recipe: EncoderRecipe = encoder.recipe

    @staticmethod
    def load(path: Path, device: str = "cpu", steps: int | None = None, encoder: Encoder | None = None) -> "Inverter":
        """The inverter at `path`, a folder that `lvm train-decoder` wrote; see `load_decoder`."""
        found: DecoderFolder = load_decoder_folder(path, torch.device(device))
        encoder = encoder or load_encoder(found.config.recipe.name, device)
        found.config.recipe.require_same(encoder.recipe, f"decoder {path}")
        if steps is not None and steps < 0:
            raise InputError(f"field 'steps' is {steps}: give 0 or more corrections")
        writer = TextWriter(found.model, found.tokenizer, resolve_dtype(device, "auto"))
        return Inverter(writer, encoder, Search() if steps is None else Search(steps=steps))

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        """See `Decoder.decode`. The same vectors give the same texts on the same machine."""
        vectors = require_vectors(vectors, self.recipe)
        generator = torch.Generator(self.writer.device).manual_seed(0)
        beams: list[list[Candidate]] = [[] for _ in vectors]
        for step in range(self.search.steps + 1 if len(vectors) else 0):
            jobs = [job for number, beam in enumerate(beams) for job in self._jobs(number, beam)]
            for likeliest in (True, False):
                chosen = [job for job in jobs if job.likeliest == likeliest]
                for job, found in zip(chosen, self._write(vectors, chosen, step, generator), strict=True):
                    if found.text not in [other.text for other in beams[job.number]]:
                        beams[job.number].append(found)
            for beam in beams:
                beam.sort(key=lambda candidate: -candidate.cosine)
                del beam[self.search.beam :]
        return [Decoded(beam[0].text, beam[0].cosine, beam[0].step) for beam in beams]

    def _jobs(self, number: int, beam: list[Candidate]) -> list[Job]:
        """The texts of one step for one vector, shared out among its hypotheses."""
        parents: list[Candidate | None] = [*beam] or [None]
        # Without corrections nothing is sampled: the first hypothesis is the likeliest text.
        count = max(len(parents), self.search.candidates if self.search.steps else 1)
        return [Job(number, parents[i % len(parents)], i < len(parents)) for i in range(count)]

    def _write(self, vectors: np.ndarray, jobs: list[Job], step: int, generator: torch.Generator) -> list[Candidate]:
        if not jobs:
            return []
        sought = vectors[[job.number for job in jobs]]
        parents = [job.parent for job in jobs if job.parent is not None]  # of all jobs, or of none in the first step
        texts = self.writer.write(
            sought,
            [parent.text for parent in parents] or None,
            np.stack([parent.vector for parent in parents]) if parents else None,
            0.0 if jobs[0].likeliest else TEMPERATURE,
            generator,
        )
        found = self.encoder.encode(texts)
        cosines = (found * sought).sum(1) / (np.linalg.norm(found, axis=1) * np.linalg.norm(sought, axis=1))
        return [Candidate(text, vector, float(c), step) for text, vector, c in zip(texts, found, cosines, strict=True)]


def shipped(name: str) -> Path:
    """Folder of the decoder of recipe `name` that comes with this package."""
    return Path(str(importlib.resources.files("lvm.decoding.inverter") / name))
