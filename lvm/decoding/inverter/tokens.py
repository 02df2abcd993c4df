"""The tokenizer of the inverter: byte-level BPE, trained on the corpus.

The encoder's tokenizer is not suitable. MiniLM's, for example, lowercases its input, and a text without its
capitals is not the same text.
"""

import json
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lvm.decoding.inverter.model import EOS, PAD
from lvm.errors import InputError


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train byte-pair encoding over bytes (Radford et al. 2019): it can represent every text, without unknown tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < vocabulary:
        raise InputError(
            f"field 'decoder.model.vocabulary' is {vocabulary}, but the texts yield {tokenizer.get_vocab_size()} entries: "
            f"give --set decoder.model.vocabulary={tokenizer.get_vocab_size()} or more text"
        )
    # A text may contain the characters of a special token, as HTML does. They are text and not the token, so no
    # added token is matched. Nor can a merge produce the token, since no word has both letters and punctuation.
    plain = json.loads(tokenizer.to_str()) | {"added_tokens": []}
    return Tokenizer.from_str(json.dumps(plain))


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> list[np.ndarray]:
    """Token ids of each text, uint16, with EOS at the end. A text of more than `limit` tokens is cut and has no EOS."""
    out = []
    for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
        out.append(np.array([*encoding.ids[:limit], EOS][:limit], np.uint16))
    return out


def decode_tokens(tokenizer: Tokenizer, tokens: np.ndarray) -> list[str]:
    """The texts of rows of token ids, int [n, L], without PAD and without what follows EOS."""
    rows = []
    for row in tokens.tolist():
        end = row.index(EOS) if EOS in row else len(row)
        rows.append([token for token in row[:end] if token != PAD])
    return [text.strip() for text in tokenizer.decode_batch(rows)]
