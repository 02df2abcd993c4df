"""Write texts for vectors and correct texts, one batch of vectors at a time."""

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer

from lvm.decoding.inverter.model import Hypothesis, InverterModel
from lvm.decoding.inverter.token_writer import TokenWriter
from lvm.decoding.inverter.tokens import decode_tokens, encode_texts


def hypothesis(tokenizer: Tokenizer, texts: Sequence[str], vectors: np.ndarray, limit: int, device: torch.device) -> Hypothesis:
    """`texts` and their embeddings `vectors` [B, D] in the form that the network reads."""
    rows = encode_texts(tokenizer, texts, limit)
    tokens = np.zeros((len(rows), max(len(row) for row in rows)), np.int64)
    for place, row in zip(tokens, rows, strict=True):
        place[: len(row)] = row
    return Hypothesis(torch.from_numpy(tokens).to(device), torch.from_numpy(vectors).to(device))


class TextWriter:
    """Writes texts for vectors with the present weights of `model`, in `dtype`."""

    def __init__(self, model: InverterModel, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.device = model.mean.device
        self.width = 256 if self.device.type == "cpu" else 8_192
        self.tokens = TokenWriter(model.t5, dtype, model.config.max_tokens)

    @torch.inference_mode()
    def write(
        self,
        vectors: np.ndarray,
        texts: Sequence[str] | None = None,
        text_vectors: np.ndarray | None = None,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """Write a text for each of `vectors` [n, D]: a first hypothesis, or a correction of `texts`.

        `text_vectors` [n, D] are the embeddings of `texts`. Temperature 0 writes the likeliest text; any other samples with `generator`.
        """
        out: list[str] = []
        for start in range(0, len(vectors), self.width):
            part = slice(start, start + self.width)
            target = torch.from_numpy(vectors[part]).to(self.device)
            guess = None
            if texts is not None and text_vectors is not None:
                guess = hypothesis(self.tokenizer, texts[part], text_vectors[part], self.model.config.max_tokens, self.device)
            with torch.autocast(self.device.type, self.tokens.dtype, enabled=self.tokens.dtype != torch.float32):
                states, seen = self.model.encode(target, guess)
            tokens = self.tokens(states, seen, temperature, generator)
            out += decode_tokens(self.tokenizer, tokens.cpu().numpy())
        return out
