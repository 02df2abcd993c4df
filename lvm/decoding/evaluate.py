"""Evaluate a decoder: with a model, on windows of a dataset, and by itself, on real texts.

With a model the whole way is run: texts -> encoder -> context -> model -> y_dec -> text. Contexts and true
next chunks are embedded again from their texts by the decoder's own encoder. Only the neighbours of a
prediction keep their stored vectors: those vectors are what was searched, and the gate `encoder_contract`
has shown that they are the encoder's.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.windows import make_windows
from lvm.decoding.arms import Arms, TextWindow, decode_arms, decoded_scores, encoder_norm, row_cosines
from lvm.decoding.gates import decoder_abc
from lvm.decoding.load import LoadedDecoder
from lvm.decoding.neighbours import ChunkLibrary, RealChunk
from lvm.decoding.protocol import Decoded, Decoder
from lvm.decoding.text_metrics import length_buckets
from lvm.errors import InputError
from lvm.evaluation.looks import count_model
from lvm.gates.result import GateResult, require
from lvm.models.checkpoint import Checkpoint

CONTEXT = 5
"""Chunks of context; fewer if the model is compared at fewer."""


WINDOWS = 100
"""Windows that are decoded with a model."""


CORRECTIONS = 1
"""Corrections with a model: the same for every arm, and few, since each takes minutes on a CPU."""


TEXTS = 256
"""Real texts that a decoder is evaluated on by itself."""


FIRST, CORRECTED = "first", "corrected"
"""The two searches of a decoder by itself: its first hypotheses, and its texts after corrections."""


@dataclass(frozen=True)
class DecodedWindows:
    """Predictions of a model as texts, and the gates on the decoder."""

    split: str
    arms: Arms
    contract: GateResult
    abc: GateResult

    def summary(self) -> dict[str, Any]:
        """As JSON values: availability, gates, scores by arm, cosines to the true next chunk (`about`), samples."""
        return {
            "available": self.abc.passed,
            "split": self.split,
            "context_length": len(self.arms.windows[0].context),
            "windows": len(self.arms.windows),
            "documents": len(np.unique(self.arms.docs)),
            "gates": [self.contract.as_json(), self.abc.as_json()],
            "arms": self.arms.scores(),
            "about": {name: asdict(interval) for name, interval in self.arms.truth_cosines().items()},
            "samples": self.arms.samples(),
        }


def decode_windows(
    dataset: Dataset,
    checkpoint: Checkpoint,
    loaded: LoadedDecoder,
    split: str = "test",
    context_length: int | None = None,
    limits: GateThresholds = GateThresholds(),
) -> DecodedWindows:
    """Decode up to 100 windows of `split` in every arm. `loaded` must have been opened for `dataset`.

    The context has five chunks, or `context_length` (by default the model's) if that is fewer.

    Raises `InputError` when dataset, model and decoder have different recipes, and `GateRefused` when
    `encoder_contract` has failed. The gate `decoder_abc` refuses nothing here: it says in the summary
    whether the texts are reliable.
    """
    checkpoint.config.recipe.require_same(dataset.manifest.recipe, f"dataset {dataset.path}")
    require([loaded.contract])
    dataset, decoder = dataset.directed(checkpoint.config.train.reverse), loaded.decoder
    evaluated = context_length or checkpoint.config.train.context_length
    length = min(CONTEXT, evaluated)
    rows = _sample(dataset, checkpoint, split, length)
    count_model(dataset, split, checkpoint.config, evaluated)
    windows = _text_windows(dataset, rows, length, decoder)
    contexts, truth = _embed(windows, decoder)
    y_dec = _predict(checkpoint, contexts)
    nearest, nearest_vectors = _nearest_chunks(dataset, rows, y_dec, checkpoint.model.mean.device)
    decoded = decode_arms(decoder, truth, y_dec, nearest_vectors, encoder_norm(checkpoint.model))
    embedded = {arm: decoder.encoder.encode([found.text for found in decoded[arm]]) for arm in decoded}
    embedded |= {"nearest": nearest_vectors, "copy_last": contexts[:, -1]}
    cosines = {name: row_cosines(vectors, truth) for name, vectors in embedded.items()}
    arms = Arms(windows, dataset.row_doc[rows], nearest, decoded, cosines)
    return DecodedWindows(split, arms, loaded.contract, decoder_abc(arms, limits))


def _sample(dataset: Dataset, checkpoint: Checkpoint, split: str, length: int) -> np.ndarray:
    """int64 [<= 100]: rows of the true next chunks, a fixed sample of those that the model is evaluated on."""
    windows = make_windows(dataset, split, length, checkpoint.config.train.eval_windows, checkpoint.model.mean.device)
    targets = windows.targets
    return np.sort(np.random.default_rng(0).choice(targets, min(WINDOWS, len(targets)), replace=False))


def _text_windows(dataset: Dataset, rows: np.ndarray, length: int, decoder: Decoder) -> list[TextWindow]:
    """The windows whose true next chunks are `rows`, with `length` chunks of context. Tokens that were not counted before are now."""
    n_tokens = dataset.table.column("n_tokens").take(rows).to_pylist()
    if None in n_tokens:
        tokens = decoder.encoder.tokenizer.encode_batch(dataset.texts(rows), add_special_tokens=False)
        n_tokens = [len(found) for found in tokens]
    out = []
    for row, n in zip(rows, n_tokens, strict=True):
        *context, truth = dataset.texts(np.arange(row - length, row + 1))
        out.append(TextWindow(dataset.doc_ids[dataset.row_doc[row]], int(dataset.chunk_index[row]), context, truth, n))
    return out


def _embed(windows: list[TextWindow], decoder: Decoder) -> tuple[np.ndarray, np.ndarray]:
    """Contexts [N, T, D] and true next chunks [N, D], embedded from their texts."""
    vectors = decoder.encoder.encode([text for window in windows for text in (*window.context, window.truth)])
    vectors = vectors.reshape(len(windows), -1, vectors.shape[1])
    return vectors[:, :-1], vectors[:, -1]


@torch.inference_mode()
def _predict(checkpoint: Checkpoint, contexts_NTD: np.ndarray) -> np.ndarray:
    """y_dec [N, D]."""
    y_dec, _ = checkpoint.model(torch.from_numpy(contexts_NTD).to(checkpoint.model.mean.device), return_both=True)
    return y_dec.cpu().numpy()


def _nearest_chunks(dataset: Dataset, rows: np.ndarray, y_dec_ND: np.ndarray, device: torch.device) -> tuple[list[RealChunk], np.ndarray]:
    """The training chunk nearest to each prediction, and its stored vector: float32 [N, D].

    A chunk of the window's own document, or with the text of its true next chunk, is left out. The training
    split holds neither when the windows are of validation or test documents; it can when they are of all.
    """
    library = ChunkLibrary(dataset, "train", device)
    own = dataset.row_doc[library.rows] == dataset.row_doc[rows][:, None]
    same = dataset.text_codes[library.rows] == dataset.text_codes[rows][:, None]
    nearest = library.nearest(y_dec_ND, own | same)
    return nearest, library.embeddings(nearest)


@dataclass(frozen=True)
class DecodedTexts:
    """Real texts, and what a decoder made of their vectors. No model is involved: this is the decoder's ceiling."""

    split: str
    windows: list[TextWindow]
    """The texts, without contexts."""

    decoded: dict[str, Sequence[Decoded]]
    """By search: `FIRST` and `CORRECTED`."""

    @property
    def roundtrip(self) -> float:
        """Mean round-trip cosine after corrections."""
        return float(np.mean([found.roundtrip_cosine for found in self.decoded[CORRECTED]]))

    def summary(self) -> dict[str, Any]:
        """As JSON values: scores of both searches, over all texts and by length in the encoder's tokens, and every text."""
        truth = [window.truth for window in self.windows]
        buckets = length_buckets(np.array([window.n_tokens for window in self.windows]))
        scores = {}
        for search, found in self.decoded.items():
            lengths = {name: decoded_scores([found[i] for i in rows], [truth[i] for i in rows]) for name, rows in buckets.items()}
            scores[search] = {**decoded_scores(found, truth), "by_length": lengths}
        first, corrected = self.decoded[FIRST], self.decoded[CORRECTED]
        samples = [
            {
                "doc_id": window.doc_id,
                "chunk_index": window.chunk_index,
                "n_tokens": window.n_tokens,
                "truth": window.truth,
                FIRST: first[i].text,
                CORRECTED: corrected[i].text,
                "roundtrip_cosine": corrected[i].roundtrip_cosine,
            }
            for i, window in enumerate(self.windows)
        ]
        documents = len({window.doc_id for window in self.windows})
        return {"split": self.split, "texts": len(truth), "documents": documents, "scores": scores, "samples": samples}


def decode_texts(dataset: Dataset, first: Decoder, corrected: Decoder, split: str = "val") -> DecodedTexts:
    """Embed up to 256 texts of `split` with the decoder's own encoder, and decode their vectors.

    `first` is the decoder without corrections, `corrected` the same decoder with them. Raises `InputError`
    when the recipes differ or the split is empty.
    """
    first.recipe.require_same(dataset.manifest.recipe, f"dataset {dataset.path}")
    rows = dataset.rows(split)
    if not len(rows):
        raise InputError(f"split '{split}' of dataset {dataset.path} is empty: give more documents (ten or more)")
    rows = np.sort(np.random.default_rng(0).choice(rows, min(TEXTS, len(rows)), replace=False))
    windows = _text_windows(dataset, rows, 0, first)
    vectors = first.encoder.encode([window.truth for window in windows])
    return DecodedTexts(split, windows, {FIRST: first.decode(vectors), CORRECTED: corrected.decode(vectors)})
