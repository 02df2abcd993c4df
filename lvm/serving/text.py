"""Text in, text out: the encoder and the decoder of the served models, and the real chunks around a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvm.data.dataset import Dataset, open_dataset, read_manifest
from lvm.data.encoders import Encoder
from lvm.data.recipe import EncoderRecipe
from lvm.decoding.neighbours import ChunkLibrary, RealChunk
from lvm.decoding.protocol import Decoded, Decoder
from lvm.errors import InputError
from lvm.serving.loaded_model import Served
from lvm.serving.requests import FieldError


@dataclass(frozen=True)
class Followed:
    """One predicted chunk."""

    text: Decoded | None
    neighbours: list[RealChunk]
    out_of_distribution: bool
    similarities: list[float]
    """Cosine of y_dec to each chunk of its context."""

    plane: np.ndarray
    """float64 [T + 1 + k, 2]: context, prediction and neighbours on the plane in which they differ most."""


@dataclass(frozen=True)
class TextOut:
    """What can be said in words. Slow, hence used by one request at a time."""

    encoder: Encoder
    decoder: Decoder | None
    library: ChunkLibrary | None

    def encode(self, texts: Sequence[str], field: str) -> np.ndarray:
        """float32 [n, D]; `FieldError` naming the text that is empty or longer than the encoder reads."""
        limit = self.encoder.recipe.max_tokens
        for number, (text, found) in enumerate(zip(texts, self.encoder.tokenizer.encode_batch(list(texts)), strict=True)):
            if not text.strip():
                raise FieldError("empty: give a sentence", field, number)
            if len(found) > limit:
                raise FieldError(f"{len(found)} tokens, and {self.encoder.recipe.name} reads {limit}: split it", field, number)
        return self.encoder.encode(texts)

    def decode(self, vectors_ND: np.ndarray) -> Sequence[Decoded]:
        """Texts of vectors; `FieldError` without a decoder."""
        if self.decoder is None:
            raise FieldError("no decoder is served: start the server with --decoder", "decode")
        return self.decoder.decode(vectors_ND)

    def follow(self, served: Served, context: list[str], steps: int, decode: bool, neighbours: int) -> list[Followed]:
        """Predict `steps` chunks after `context`, one after the other.

        What a step gives as text joins the context of the next: the decoded text, else the nearest real chunk. Raises
        `FieldError` when something is asked that is not served.
        """
        if neighbours and self.library is None:
            raise FieldError("no dataset is served: start the server with --data", "neighbours")
        if decode and self.decoder is None:
            raise FieldError("no decoder is served: start the server with --decoder", "decode")
        if steps > 1 and not (decode or neighbours):
            raise FieldError("over 1 needs decode or neighbours: each step goes on from the text of the one before", "steps")
        seen, vectors = list(context), self.encode(context, "context")
        out = []
        for _ in range(steps):
            window = vectors[-served.longest :]
            found = served.predict(window[None])
            text = self.decoder.decode(found.decoder)[0] if decode and self.decoder else None
            near: list[RealChunk] = []
            if neighbours and self.library:
                near = self.library.nearest_few(found.cosine, self.library.holding(seen)[None], neighbours)[0]
            nearby = self.encoder.encode([chunk.text for chunk in near]) if near else vectors[:0]
            similarities = _unit(window) @ _unit(found.decoder)[0]
            plane = _plane(np.concatenate([_unit(window), _unit(found.decoder), _unit(nearby)]))
            out.append(Followed(text, near, bool(found.out_of_distribution[0]), similarities.tolist(), plane))
            seen.append(text.text if text else near[0].text if near else "")
            vectors = np.concatenate([vectors, self.encoder.encode(seen[-1:])])
        return out


def find_library(data: Path, digest: str) -> Dataset:
    """The dataset at `data`, or the one of this digest among the folders in it; `InputError` when there is none."""
    if (data / "manifest.json").is_file():
        return open_dataset(data)
    for file in sorted(data.glob("*/manifest.json")):
        if read_manifest(file.parent).digest == digest:
            return open_dataset(file.parent)
    raise InputError(
        f"{data} is no dataset and holds none of the digest {digest[:12]}, on which the model was trained: give another --data"
    )


def load_text(recipe: EncoderRecipe, decoder: str | None, data: Dataset | None, device: str) -> TextOut:
    """Load the encoder of `recipe`, the decoder of that name if any, and the chunks of `data` if any.

    Raises `InputError` when one of them is of another recipe.
    """
    import torch

    from lvm.data.encoders import load_encoder
    from lvm.decoding.load import load_decoder

    loaded = load_decoder(decoder, device) if decoder else None
    encoder = loaded.encoder if loaded else load_encoder(recipe.name, device)
    recipe.require_same(encoder.recipe, f"the encoder {recipe.name} of this machine")
    library = None
    if data is not None:
        recipe.require_same(data.manifest.recipe, f"dataset {data.path}")
        data.require_finite()
        library = ChunkLibrary(data, "all", torch.device(device))
    encoder.encode(["A first sentence warms the encoder."])
    return TextOut(encoder, loaded, library)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _plane(points_ND: np.ndarray) -> np.ndarray:
    """The two principal components of the points: float64 [N, 2]."""
    centred = (points_ND - points_ND.mean(0)).astype(np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(points_ND), 2))
    plane[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    return plane
