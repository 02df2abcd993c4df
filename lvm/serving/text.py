"""The text side of serving: the models' encoder, its decoder, and the real chunks near a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from lvm.data.cleaning import clean
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder, load_encoder, token_counts
from lvm.data.manifest import read_manifest
from lvm.data.readable import Reader
from lvm.data.recipe import EncoderRecipe
from lvm.decoding.load import load_decoder
from lvm.decoding.neighbours import ChunkLibrary, RealChunk
from lvm.decoding.protocol import Decoded, Decoder
from lvm.errors import InputError
from lvm.serving.loaded_model import LoadedModel
from lvm.serving.requests import FieldError


@dataclass(frozen=True)
class TextStep:
    """One predicted chunk of a continuation."""

    decoded: Decoded | None
    """None when the request asked for no text."""

    neighbours: list[RealChunk]
    out_of_distribution: bool

    similarities: list[float]
    """Cosine of y_dec to each chunk of its context."""

    plane: np.ndarray
    """float64 [T + 1 + k, 2]: context, prediction and neighbours on their first two principal components."""


@dataclass(frozen=True)
class TextPipeline:
    """Encodes, decodes and continues text. Slow, so the server runs one request at a time."""

    encoder: Encoder
    decoder: Decoder | None
    library: ChunkLibrary | None

    def encode(self, texts: Sequence[str], field: str) -> np.ndarray:
        """Embeddings, float32 [n, D]; `FieldError` names the text that is empty, too long, or not readable by the encoder."""
        return self.encoder.encode(self._usable(texts, field))

    def decode(self, vectors_ND: np.ndarray) -> Sequence[Decoded]:
        """Texts of vectors; `FieldError` when there is no decoder, `InputError` when the vectors cannot be of its encoder."""
        if self.decoder is None:
            raise FieldError("no decoder is loaded: start the server with --decoder", "decode")
        return self.decoder.decode(vectors_ND)

    def continue_text(self, model: LoadedModel, context: list[str], steps: int, decode: bool, neighbours: int) -> list[TextStep]:
        """Predict `steps` chunks after `context`, one after the other.

        The text of a step joins the context of the next one: the decoded text, or else the nearest real chunk. Only what the
        model reads is encoded: the last chunks of the context, and decoded text that a further step continues. The vectors of
        real chunks come from the dataset. Raises `FieldError` when the request needs something that is not loaded.
        """
        self._require_loaded(steps, decode, neighbours)
        texts = self._usable(context, "context")
        vectors = self.encoder.encode(texts[-model.max_context :])
        out: list[TextStep] = []
        while True:
            window = vectors[-model.max_context :]
            predicted = model.predict(window[None])
            decoded = self.decoder.decode(predicted.decoder)[0] if decode and self.decoder else None
            near: list[RealChunk] = []
            near_vectors = vectors[:0]
            if neighbours and self.library:
                near = self.library.nearest_few(predicted.cosine, self.library.holding(texts)[None], neighbours)[0]
                near_vectors = self.library.embeddings(near)
            similarities = _unit(window) @ _unit(predicted.decoder)[0]
            plane = _principal_plane(np.concatenate([_unit(window), _unit(predicted.decoder), _unit(near_vectors)]))
            out.append(TextStep(decoded, near, bool(predicted.out_of_distribution[0]), similarities.tolist(), plane))
            if len(out) == steps:
                return out
            texts.append(decoded.text if decoded else near[0].text)
            vectors = np.concatenate([vectors, self.encoder.encode(texts[-1:]) if decoded else near_vectors[:1]])

    def _require_loaded(self, steps: int, decode: bool, neighbours: int) -> None:
        if neighbours and self.library is None:
            raise FieldError("no dataset is loaded: start the server with --data", "neighbours")
        if decode and self.decoder is None:
            raise FieldError("no decoder is loaded: start the server with --decoder", "decode")
        if steps > 1 and not (decode or neighbours):
            raise FieldError("more than 1 needs decode or neighbours: each step continues from the text of the step before", "steps")

    def _usable(self, texts: Sequence[str], field: str) -> list[str]:
        """The texts, cleaned as those of documents are; `FieldError` at the first that the encoder would not read, or not whole."""
        recipe, cleaned = self.encoder.recipe, [clean(text) for text in texts]
        for number, (text, tokens) in enumerate(zip(cleaned, token_counts(self.encoder, cleaned), strict=True)):
            if not text.strip():
                raise FieldError("empty: give a sentence", field, number)
            if tokens > recipe.max_tokens:
                raise FieldError(f"{tokens} tokens, but {recipe.name} reads at most {recipe.max_tokens}: split it", field, number)
        if unreadable := self._reader.first_unreadable(cleaned, recipe.name):
            number, problem = unreadable
            raise FieldError(f"{problem}: write in a language that it knows", field, number)
        return cleaned

    @cached_property
    def _reader(self) -> Reader:
        """Tells what the encoder can read."""
        return Reader(self.encoder.tokenizer)


def find_dataset(path: Path, digest: str) -> Dataset:
    """The dataset at `path`, or the one with this digest among the folders in `path`; `InputError` when there is none."""
    if (path / "manifest.json").is_file():
        return open_dataset(path)
    for manifest in sorted(path.glob("*/manifest.json")):
        if read_manifest(manifest.parent).digest == digest:
            return open_dataset(manifest.parent)
    raise InputError(
        f"{path} is not a dataset and contains none with the digest {digest[:12]}, which the model was trained on: give another --data"
    )


def load_text_pipeline(recipe: EncoderRecipe, decoder: str | None, dataset: Dataset | None, device: str) -> TextPipeline:
    """Load the encoder of `recipe`, the decoder with this name if any, and the chunks of `dataset` if any.

    Raises `InputError` when one of them has another recipe.
    """
    loaded = load_decoder(decoder, device) if decoder else None
    encoder = loaded.encoder if loaded else load_encoder(recipe.name, device)
    recipe.require_same(encoder.recipe, f"the encoder {recipe.name} on this machine")
    library = None
    if dataset is not None:
        recipe.require_same(dataset.manifest.recipe, f"dataset {dataset.path}")
        dataset.require_finite()
        library = ChunkLibrary(dataset, "all", torch.device(device))
    encoder.encode(["The first call of an encoder is slow."])
    return TextPipeline(encoder, loaded, library)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _principal_plane(points_ND: np.ndarray) -> np.ndarray:
    """The points on their first two principal components: float64 [N, 2]."""
    centred = (points_ND - points_ND.mean(0)).astype(np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(points_ND), 2))
    plane[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    return plane
