"""The hypotheses that an inverter learns to correct."""

import numpy as np
import torch

from lvm.data.encoders import Encoder
from lvm.decoding.inverter.loss import add_noise
from lvm.decoding.inverter.pool import Pool, Ragged
from lvm.decoding.inverter.text_writer import TextWriter
from lvm.decoding.inverter.tokens import encode_texts


def with_hypotheses(pool: Pool, count: int, noise: float, writer: TextWriter, encoder: Encoder, rng: np.random.Generator) -> Pool:
    """`pool` with hypotheses for its first `count` texts, written by `writer` from their noisy vectors.

    A random half of them is corrected once, since from its second step on the corrector meets corrected texts.
    """
    sought = add_noise(pool.vectors[:count], noise).cpu().numpy()
    texts = writer.write(sought)
    vectors = encoder.encode(texts)
    again = np.flatnonzero(rng.random(len(texts)) < 0.5)
    corrected = writer.write(sought[again], [texts[i] for i in again], vectors[again])
    vectors[again] = encoder.encode(corrected)
    for place, text in zip(again.tolist(), corrected, strict=True):
        texts[place] = text
    device = pool.vectors.device
    tokens = Ragged(encode_texts(writer.tokenizer, texts, writer.model.config.max_tokens), device)
    return Pool(pool.vectors, pool.labels, tokens, torch.from_numpy(vectors).to(device))
