"""What a decoder can do at best: arm A alone, on texts that nobody learned from, without a model in between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lvm.corpus.dataset import Dataset
from lvm.decode import Decoded, Decoder
from lvm.decode.arms import Question, decoded_scores
from lvm.decode.text_metrics import length_buckets
from lvm.errors import InputError

TEXTS = 256

FIRST, CORRECTED = "first", "corrected"


@dataclass(frozen=True)
class Ceiling:
    """Real texts, and what came back of their vectors."""

    split: str
    questions: list[Question]
    """The texts, without contexts."""

    decoded: dict[str, Sequence[Decoded]]
    """By search: the first hypotheses, and the texts after the decoder's own number of corrections."""

    @property
    def roundtrip(self) -> float:
        """Mean round-trip cosine after corrections."""
        return float(np.mean([found.roundtrip_cosine for found in self.decoded[CORRECTED]]))

    def summary(self) -> dict[str, Any]:
        """As JSON values: scores of both searches, over all texts and by length in the encoder's tokens, and every text."""
        truth = [question.truth for question in self.questions]
        buckets = length_buckets(np.array([question.n_tokens for question in self.questions]))
        scores = {}
        for search, found in self.decoded.items():
            lengths = {name: decoded_scores([found[i] for i in rows], [truth[i] for i in rows]) for name, rows in buckets.items()}
            scores[search] = {**decoded_scores(found, truth), "by_length": lengths}
        first, corrected = self.decoded[FIRST], self.decoded[CORRECTED]
        samples = [
            {
                "doc_id": question.doc_id,
                "chunk_index": question.chunk_index,
                "n_tokens": question.n_tokens,
                "truth": question.truth,
                FIRST: first[i].text,
                CORRECTED: corrected[i].text,
                "roundtrip_cosine": corrected[i].roundtrip_cosine,
            }
            for i, question in enumerate(self.questions)
        ]
        documents = len({question.doc_id for question in self.questions})
        return {"split": self.split, "texts": len(truth), "documents": documents, "scores": scores, "samples": samples}


def measure_ceiling(dataset: Dataset, first: Decoder, corrected: Decoder, split: str = "val") -> Ceiling:
    """Embed 256 texts of `split`, or all there are, with the decoder's own encoder, and decode their vectors.

    `first` is the decoder without corrections, `corrected` the same with them. Raises `InputError`
    when the recipes differ or the split is empty.
    """
    first.recipe.require_same(dataset.manifest.recipe, f"dataset {dataset.path}")
    rows = dataset.rows(split)
    if not len(rows):
        raise InputError(f"split '{split}' of dataset {dataset.path} is empty: give more documents (ten or more)")
    rows = np.sort(np.random.default_rng(0).choice(rows, min(TEXTS, len(rows)), replace=False))
    n_tokens = dataset.table.column("n_tokens").take(rows).to_pylist()
    questions = [
        Question(dataset.doc_ids[dataset.row_doc[row]], int(dataset.chunk_index[row]), [], text, n)
        for row, text, n in zip(rows, dataset.texts(rows), n_tokens, strict=True)
    ]
    vectors = first.encoder.encode([question.truth for question in questions])
    return Ceiling(split, questions, {FIRST: first.decode(vectors), CORRECTED: corrected.decode(vectors)})
