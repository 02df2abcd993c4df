"""Metrics that compare decoded texts with the texts that they should be.

Words come from NLTK's Treebank tokenizer, as in vec2text (Morris et al. 2023, arXiv 2310.06816): case is kept,
and punctuation marks are words. Lengths are in the encoder's tokens.

NLTK and the libraries built on it take more than a second to import, and every flow imports this file, so they
are imported inside the functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LENGTHS = (16, 32, 64)
"""Upper ends of the length buckets; longer texts form a last bucket."""


@dataclass(frozen=True)
class TextScores:
    """Metrics of a set of texts."""

    bleu: float
    """Corpus BLEU by sacrebleu with its defaults (13a tokens, exponential smoothing), 0 to 100."""

    token_f1: float
    """F1 between the two texts' sets of words, averaged over pairs, 0 to 1: vec2text's `token_set_f1`."""

    rouge_l: float
    """F-measure of the longest common subsequence (Lin 2004) by rouge-score, lower case, no stemming, averaged over pairs."""

    exact: float
    """Share of texts that equal their reference."""

    distinct_2: float
    """Distinct bigrams over all bigrams of all texts (Li et al. 2016): low when every text says the same."""

    repetition: float
    """Share of 4-grams that occurred earlier in the same text (Welleck et al. 2020), averaged: high when texts go in circles."""

    n: int
    """Number of texts."""


def words(text: str) -> list[str]:
    """Words and punctuation marks of `text`, with their case."""
    from nltk import word_tokenize

    return list(word_tokenize(text, preserve_line=True))  # otherwise NLTK needs a sentence model to be downloaded


def text_scores(texts: Sequence[str], references: Sequence[str]) -> TextScores:
    """Scores of `texts`, each against the text of `references` at the same place."""
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [(words(text), words(reference)) for text, reference in zip(texts, references, strict=True)]
    rouge = RougeScorer(["rougeL"])
    return TextScores(
        bleu=float(sacrebleu.corpus_bleu(list(texts), [list(references)]).score),
        token_f1=float(np.mean([token_f1(*pair) for pair in pairs])),
        rouge_l=float(np.mean([rouge.score(r, t)["rougeL"].fmeasure for t, r in zip(texts, references, strict=True)])),
        exact=float(np.mean([text == reference for text, reference in zip(texts, references, strict=True)])),
        distinct_2=distinct_2([text for text, _ in pairs]),
        repetition=float(np.mean([repetition(text) for text, _ in pairs])),
        n=len(pairs),
    )


def token_f1(text: Sequence[str], reference: Sequence[str]) -> float:
    """F1 between two sets of words: twice the shared ones over the sum of both sizes; 0 when both are empty."""
    found, expected = set(text), set(reference)
    return 2 * len(found & expected) / max(1, len(found) + len(expected))


def distinct_2(texts: Sequence[Sequence[str]]) -> float:
    """Share of distinct bigrams among the bigrams of all texts; 1 when there are none."""
    from nltk import ngrams

    bigrams = [bigram for text in texts for bigram in ngrams(text, 2)]
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0


def repetition(text: Sequence[str]) -> float:
    """Share of 4-grams that repeat an earlier one; 0 for a text with fewer than four words."""
    from nltk import ngrams

    found = list(ngrams(text, 4))
    return 1 - len(set(found)) / len(found) if found else 0.0


def length_buckets(n_tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the texts in each length bucket, by the bucket's name, such as '17-32'; empty buckets are left out."""
    number = np.searchsorted(LENGTHS, n_tokens)
    lower = [1, *(end + 1 for end in LENGTHS)]
    names = [f"{low}-{high}" for low, high in zip(lower, LENGTHS, strict=False)] + [f"{lower[-1]}+"]
    found = {name: np.flatnonzero(number == i) for i, name in enumerate(names)}
    return {name: rows for name, rows in found.items() if len(rows)}
