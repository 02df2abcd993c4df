"""Encoders of the sentence-transformers library."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lvm.data.encoder_batches import batch_size, batches_by_length, group_size
from lvm.data.model_folder import counting_tokenizer, explaining_damage, weights_sha256
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError


class SentenceTransformerEncoder:
    """An `Encoder` that runs the modules of a sentence-transformers folder as they are.

    Raises `InputError` when the folder is damaged, holds pickled weights, or has no pooling, and when the model puts a prompt
    before every text: a recipe cannot describe that.
    """

    def __init__(self, name: str, folder: Path, device: str, dtype: torch.dtype) -> None:
        self._device = device
        self.group = group_size(device)
        self.dtype = str(dtype).removeprefix("torch.")
        weights = weights_sha256(folder)
        self._model = _load(name, folder, device, dtype)
        max_tokens = int(self._model.max_seq_length or 512)
        self.tokenizer = counting_tokenizer(self._model.tokenizer)
        self._truncating = counting_tokenizer(self._model.tokenizer)
        self._truncating.enable_truncation(max_tokens)
        self._pad = int(self._model.tokenizer.pad_token_id)
        modules = {type(module).__name__: module for module in self._model}
        if "Pooling" not in modules:
            raise InputError(f"encoder {name!r}: no pooling module in {folder}; not a sentence-transformers model")
        pooling: Any = modules["Pooling"]
        modes = pooling.pooling_mode
        self.recipe = EncoderRecipe(
            name=name,
            weights_sha256=weights,
            pooling=modes if isinstance(modes, str) else "+".join(modes),
            dense="Dense" in modules,
            normalize="Normalize" in modules,
            max_tokens=max_tokens,
            dim=int(self._model.get_embedding_dimension() or 0),
        )

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode`. Unit length is restored in float32, since bfloat16 rounds it.

        The model's modules are called directly: `SentenceTransformer.encode` spends more time on each text in Python than an
        accelerator does on computing it.
        """
        ids = [np.array(found.ids, np.int64) for found in self._truncating.encode_batch_fast(list(texts))]
        lengths = np.array([len(row) for row in ids], np.int64)
        vectors = np.empty((len(texts), self.recipe.dim), np.float32)
        for rows in batches_by_length(lengths.tolist(), batch_size(self._device)):
            tokens = np.full((len(rows), lengths[rows[0]]), self._pad, np.int64)
            for place, row in zip(tokens, rows.tolist(), strict=True):
                place[: lengths[row]] = ids[row]
            mask = torch.from_numpy((np.arange(tokens.shape[1]) < lengths[rows][:, None]).astype(np.int64))
            batch = {"input_ids": torch.from_numpy(tokens).to(self._device), "attention_mask": mask.to(self._device)}
            vectors[rows] = self._model(batch)["sentence_embedding"].float().cpu().numpy()
        if self.recipe.normalize:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def _load(name: str, folder: Path, device: str, dtype: torch.dtype) -> Any:
    """The library's model, without pickled weights and without a prompt of its own."""
    from sentence_transformers import SentenceTransformer

    for pickled in folder.rglob("pytorch_model*.bin"):
        # The library would load it, and the recipe's digest would not cover it.
        if not any(pickled.parent.glob("*.safetensors")):
            raise InputError(f"encoder {name!r}: pickled weights are not loaded: save {pickled} as safetensors")
    with explaining_damage(name, folder):
        model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype}).eval()
    if model.default_prompt_name:
        raise InputError(f"encoder {name!r}: it puts a default prompt before every text, which a recipe does not hold")
    return model
