"""Encoders that a server runs, behind an endpoint for embeddings like OpenAI's."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from lvm.atomic_io import read_json
from lvm.data.encoder_name import split_name
from lvm.data.endpoint_client import EndpointClient
from lvm.data.model_folder import hub_folder
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError

BATCH = 32
"""Texts in a request: Text Embeddings Inference takes no more by default."""

AT_ONCE = 4
"""Requests under way at a time, so that a server's next batch is there when it has finished one."""

UNIT = 0.001
"""How far the norms of unit vectors are from 1 at most, after the server's rounding."""

GOLDEN_TEXTS = (
    "The harvest was poor, and bread became dear.",
    "She tuned the violin before the hall filled.",
    "Water boils at a lower temperature on a mountain.",
    "The committee postponed its vote until spring.",
    "A red fox crossed the frozen canal at dawn.",
    "Prime numbers have no divisors but one and themselves.",
    "He repaired the bicycle with a piece of wire.",
    "The treaty was signed after three years of war.",
)
"""Texts of which an endpoint's vectors are recorded, to recognise the model. Other texts would make every recorded one foreign."""

GOLDEN_COORDINATES = 16
"""Coordinates of each that are recorded: 128 numbers in all."""


LONGEST = 10**6
"""Tokenizers without a limit name a far greater number."""


class EndpointEncoder:
    """An `Encoder` behind `POST URL/embeddings`, as OpenAI, Text Embeddings Inference, Infinity, vLLM and llama.cpp serve it.

    Its name is `openai:URL#MODEL`, for example `openai:http://127.0.0.1:8080/v1#BAAI/bge-small-en-v1.5`. After a `?` may follow:

    - `tokenizer`: folder or hub name of the tokenizer that counts the model's tokens; the model's name by default,
    - `max_tokens`: tokens that the model reads; by default what the tokenizer's folder says,
    - `prompt`: text before every text.

    No weights are seen, so the recipe records what the server answers to `GOLDEN_TEXTS`, and `EncoderRecipe.require_same` compares
    that. Raises `InputError` as `EndpointClient.embed` does, and when the tokenizer or its limit cannot be had.
    """

    group = BATCH * AT_ONCE * 8
    dtype = "served"

    def __init__(self, name: str) -> None:
        url, model, options = _parts(name)
        folder = _tokenizer_folder(name, options.get("tokenizer", model))
        self.tokenizer = _counting(name, folder)
        self._client = EndpointClient(name, url, model)
        self._prompt = options.get("prompt", "")
        golden = self._client.embed([self._prompt + text for text in GOLDEN_TEXTS], first=True)
        self.recipe = EncoderRecipe(
            name=name,
            weights_sha256=hashlib.sha256(f"served as {model}".encode()).hexdigest(),
            pooling="endpoint",
            dense=False,
            normalize=bool(np.all(np.abs(np.linalg.norm(golden, axis=1) - 1) < UNIT)),
            max_tokens=_max_tokens(name, folder, options.get("max_tokens")),
            dim=golden.shape[1],
            prompt=self._prompt,
            golden=tuple(round(float(value), 6) for value in golden[:, :GOLDEN_COORDINATES].ravel()),
        )

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode`."""
        prompted = [self._prompt + text for text in texts]
        batches = [prompted[start : start + BATCH] for start in range(0, len(prompted), BATCH)]
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            vectors = list(pool.map(lambda batch: self._client.embed(batch, self.recipe.dim), batches))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error nothing more is asked
        return np.concatenate([np.empty((0, self.recipe.dim), np.float32), *vectors])


def _parts(name: str) -> tuple[str, str, dict[str, str]]:
    """URL, model and options of an endpoint's name; the URL's own query stays in the URL."""
    url, mark, rest = name.partition(":")[2].partition("#")
    if not mark:
        raise InputError(f"encoder {name!r}: no model is named: write openai:URL#MODEL")
    model, options = split_name(f"openai:{rest}", ("tokenizer", "max_tokens", "prompt"))
    return url, model, options


def _tokenizer_folder(name: str, tokenizer: str) -> Path:
    try:
        return hub_folder(tokenizer, patterns=("*.json",))
    except InputError as error:
        raise InputError(f"{error}; chunks are cut by tokens: add '?tokenizer=FOLDER' with the model's tokenizer to {name!r}") from error


def _counting(name: str, folder: Path) -> Tokenizer:
    """The tokenizer in `folder`, without truncation and padding."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"encoder {name!r}: {folder} holds no tokenizer.json: add '?tokenizer=FOLDER' with one that does")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"encoder {name!r}: {file} is no tokenizer ({error}): download it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _max_tokens(name: str, folder: Path, given: str | None) -> int:
    """Tokens that the model reads: `given`, or the least that its folder names."""
    if given is not None:
        if not given.isdecimal() or not int(given):
            raise InputError(f"encoder {name!r}: max_tokens={given} is not a whole number of 1 or more")
        return int(given)
    files = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}
    found = {file: read_json(folder / file, "download it again") for file in files if (folder / file).is_file()}
    values = [values.get(files[file]) for file, values in found.items() if isinstance(values, dict)]
    limits = [value for value in values if isinstance(value, int | float) and 0 < value <= LONGEST]
    if not limits:
        raise InputError(f"encoder {name!r}: {folder} does not say how many tokens the model reads: add '?max_tokens=N'")
    return int(min(limits))
