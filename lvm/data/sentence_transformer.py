"""Encoders of the sentence-transformers library."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch

from lvm.data.encoder_batches import batch_size, batches_by_length, group_size
from lvm.data.model_folder import counting_tokenizer, explaining_damage, weights_sha256
from lvm.data.model_modules import STATIC, describe_modules
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError

NO_LIMIT = 2**31 - 1
"""`max_tokens` of a model that reads texts of any length."""

CHECKED_TEXTS = (
    "Peace.",
    "The public debt has been reduced, and our trade with other nations was never larger than in the year that has passed.",
)
"""Encoded by the library too when an encoder is loaded."""

CHECKED_DISTANCE = 0.1
"""How far our vector may be from the library's, relative to its norm. In bfloat16, padding alone moves a vector of MiniLM by .0103."""


Batch = tuple[np.ndarray, dict[str, Any]]
"""Row numbers, int64, and the features of their texts as the model's modules take them."""


class SentenceTransformerEncoder:
    """An `Encoder` that runs the modules of a sentence-transformers folder as they are.

    `prompt` is put before every text; None means that none is given. Raises `InputError` when the folder is damaged, holds pickled
    weights or modules that a recipe cannot describe, when the model has a default prompt and none is given, and when our vectors are
    not the library's.
    """

    def __init__(self, name: str, folder: Path, device: str, dtype: torch.dtype, prompt: str | None = None) -> None:
        self._device = device
        self.group = group_size(device)
        self.dtype = str(dtype).removeprefix("torch.")
        weights = weights_sha256(folder)
        self._model = _load(name, folder, device, dtype, prompt)
        described = describe_modules(name, self._model, prompt or "")
        self._static = type(self._model[0]).__name__ == STATIC
        self.tokenizer = counting_tokenizer(name, self._model.tokenizer)
        self.recipe = EncoderRecipe(
            name=name,
            weights_sha256=weights,
            max_tokens=_max_tokens(self._model),
            dim=int(self._model.get_embedding_dimension() or 0),
            prompt=prompt or "",
            **described,
        )
        if not self._static:
            self._truncating = counting_tokenizer(name, self._model.tokenizer)
            self._truncating.enable_truncation(self.recipe.max_tokens)
            self._pad = _padding_token(self._model.tokenizer)
        self._require_library_vectors(name)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode`. Unit length is restored in float32, since bfloat16 rounds it.

        The model's modules are called directly: `SentenceTransformer.encode` spends more time on each text in Python than an
        accelerator does on computing it.
        """
        prompted = [self.recipe.prompt + text for text in texts]
        vectors = np.empty((len(texts), self.recipe.dim), np.float32)
        for rows, features in self._static_batches(prompted) if self._static else self._padded_batches(prompted):
            vectors[rows] = self._model(features)["sentence_embedding"].float().cpu().numpy()
        if self.recipe.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return vectors

    def _static_batches(self, texts: list[str]) -> Iterator[Batch]:
        """Batches for a model that looks tokens up, made by the model itself: nothing is padded."""
        size = batch_size(self._device)
        for start in range(0, len(texts), size):
            rows = np.arange(start, min(start + size, len(texts)))
            features = self._model[0].preprocess(texts[start : start + size])
            yield rows, {key: value.to(self._device) for key, value in features.items()}

    def _padded_batches(self, texts: list[str]) -> Iterator[Batch]:
        """Batches for a transformer: texts of like length together, padded on the right."""
        ids = [np.array(found.ids, np.int64) for found in self._truncating.encode_batch_fast(texts)]
        lengths = np.array([len(row) for row in ids], np.int64)
        for rows in batches_by_length(lengths.tolist(), batch_size(self._device)):
            tokens = np.full((len(rows), lengths[rows[0]]), self._pad, np.int64)
            for place, row in zip(tokens, rows.tolist(), strict=True):
                place[: lengths[row]] = ids[row]
            mask = torch.from_numpy((np.arange(tokens.shape[1]) < lengths[rows][:, None]).astype(np.int64))
            features = {"input_ids": torch.from_numpy(tokens).to(self._device), "attention_mask": mask.to(self._device)}
            yield rows, features | self._prompt_length

    @cached_property
    def _prompt_length(self) -> dict[str, int]:
        """The prompt's tokens without a special token after it, for a pooling that leaves them out; nothing without a prompt."""
        found = self._truncating.encode(self.recipe.prompt)
        return {"prompt_length": len(found) - sum(found.special_tokens_mask[-1:])} if self.recipe.prompt else {}

    def _require_library_vectors(self, name: str) -> None:
        """Raise `InputError` unless texts of different lengths get the vectors that the library gives to each alone."""
        own = self.encode(CHECKED_TEXTS)
        for text, vector in zip(CHECKED_TEXTS, own, strict=True):
            expected = self._model.encode([text], prompt=self.recipe.prompt, show_progress_bar=False)[0].astype(np.float32)
            if not np.linalg.norm(vector - expected) <= CHECKED_DISTANCE * np.linalg.norm(expected):
                raise InputError(
                    f"encoder {name!r}: SentenceTransformer.encode gives other vectors than the model's modules do on plain tokens; "
                    "it prepares texts in a way that is not supported: choose another model"
                )


def _padding_token(tokenizer: Any) -> int:
    """The token that pads, by number. A tokenizer without one gets one: padding is masked, so any will do.

    Where there is one it must be that: some models number the positions by what is not their padding token.
    """
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return int(tokenizer.pad_token_id)


def _max_tokens(model: Any) -> int:
    """Tokens that the model reads. A model that looks tokens up has no limit unless its tokenizer truncates."""
    if type(model[0]).__name__ == STATIC:
        return int((model.tokenizer.truncation or {"max_length": NO_LIMIT})["max_length"])
    return int(model.max_seq_length or 512)


def _load(name: str, folder: Path, device: str, dtype: torch.dtype, prompt: str | None) -> Any:
    """The library's model. Pickled weights and adapters are refused, and a default prompt where none is given."""
    from sentence_transformers import SentenceTransformer

    for pickled in folder.rglob("pytorch_model*.bin"):
        # The library would load it, and the recipe's digest would not cover it.
        if not any(pickled.parent.glob("*.safetensors")):
            raise InputError(f"encoder {name!r}: pickled weights are not loaded: save {pickled} as safetensors")
    if (folder / "adapter_config.json").exists():
        raise InputError(f"encoder {name!r}: {folder} is an adapter, which the weights of its base model are no part of: merge the two")
    with explaining_damage(name, folder):
        model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype}).eval()
        if type(model[0]).__name__ == STATIC:
            model.to(dtype)
    if model.default_prompt_name and prompt is None:
        text = str(model.prompts[model.default_prompt_name])
        raise InputError(
            f"encoder {name!r}: it puts a default prompt before every text: {text!r}; add '?prompt={quote(text)}' to its name for that, "
            "another text for another prompt, or '?prompt=' for none"
        )
    return model
