"""vec2text's encoder of GTR."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lvm.data.encoder_batches import batch_size, batches_by_length, group_size
from lvm.data.model_folder import counting_tokenizer, explaining_damage, weights_sha256
from lvm.data.recipe import EncoderRecipe

MAX_TOKENS = 32


class T5MeanEncoder:
    """An `Encoder` by vec2text's recipe for GTR: the T5 encoder, mean over tokens, no dense layer, no normalisation.

    Morris et al. 2023 (arXiv 2310.06816) trained their `gtr-base` inverters on these vectors.
    """

    def __init__(self, name: str, folder: Path, device: str, dtype: torch.dtype) -> None:
        from transformers import AutoTokenizer, T5EncoderModel

        self._device = device
        self.group = group_size(device)
        self.dtype = str(dtype).removeprefix("torch.")
        weights = weights_sha256(folder, pattern="model*.safetensors")
        with explaining_damage(name, folder):
            self._model = T5EncoderModel.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
            self._model.to(torch.device(device))
            self._tokenize = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer = counting_tokenizer(name, self._tokenize)
        self.recipe = EncoderRecipe(
            name=name,
            weights_sha256=weights,
            pooling="mean",
            dense=False,
            normalize=False,
            max_tokens=MAX_TOKENS,
            dim=self._model.config.d_model,
        )

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode`."""
        vectors = np.empty((len(texts), self.recipe.dim), np.float32)
        for rows in batches_by_length([len(text) for text in texts], batch_size(self._device)):
            batch = self._tokenize([texts[i] for i in rows], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt").to(
                self._model.device
            )
            states = self._model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1).float()
            vectors[rows] = ((states * mask).sum(1) / mask.sum(1)).cpu().numpy()
        return vectors
