"""Metrics on decoded texts beside the texts that they should be.

Words are those of NLTK's Treebank tokenizer, which vec2text (Morris et al. 2023, arXiv 2310.06816)
counts by too: case is kept, punctuation marks are words. Lengths are in the encoder's tokens.

NLTK and what stands on it are imported where they are used: they take more than a second, and every flow imports this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Upper ends of the length buckets; what is longer stands in a last one.
LENGTHS = (16, 32, 64)


@dataclass(frozen=True)
class TextScores:
    """What is measured on a set of texts."""

    bleu: float
    """Corpus BLEU by sacrebleu with its defaults (13a tokens, exponential smoothing), 0 to 100."""

    token_f1: float
    """F1 of the two texts' sets of words, averaged over pairs, 0 to 1: vec2text's `token_set_f1`."""

    rouge_l: float
    """F-measure of the longest common subsequence (Lin 2004) by rouge-score, lower case, no stemming, averaged over pairs."""

    exact: float
    """Share of texts that are the very text."""

    distinct_2: float
    """Different bigrams over all bigrams of all texts (Li et al. 2016): low when every text says the same."""

    repetition: float
    """Share of a text's 4-grams that stand in it before (Welleck et al. 2020), averaged over texts: high when it goes in circles."""

    n: int
    """Texts."""


def words(text: str) -> list[str]:
    """Words and punctuation marks of `text`, in its case."""
    from nltk import word_tokenize

    return list(word_tokenize(text, preserve_line=True))  # or NLTK wants a sentence model downloaded


def text_scores(texts: Sequence[str], references: Sequence[str]) -> TextScores:
    """Scores of `texts`, each beside the one text of `references` that it should be."""
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
    """F1 of two sets of words: twice the shared over the sum of both; 0 when neither has any."""
    mine, theirs = set(text), set(reference)
    return 2 * len(mine & theirs) / max(1, len(mine) + len(theirs))


def distinct_2(texts: Sequence[Sequence[str]]) -> float:
    """Share of different ones among the bigrams of all texts; 1 when there are none."""
    from nltk import ngrams

    bigrams = [bigram for text in texts for bigram in ngrams(text, 2)]
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0


def repetition(text: Sequence[str]) -> float:
    """Share of 4-grams that repeat an earlier one; 0 for a text of fewer than four words."""
    from nltk import ngrams

    found = list(ngrams(text, 4))
    return 1 - len(set(found)) / len(found) if found else 0.0


def length_buckets(n_tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Positions of the texts in each length bucket, by its name, such as '17-32'; empty buckets are left out."""
    number = np.searchsorted(LENGTHS, n_tokens)
    lower = [1, *(end + 1 for end in LENGTHS)]
    names = [f"{low}-{high}" for low, high in zip(lower, LENGTHS, strict=False)] + [f"{lower[-1]}+"]
    found = {name: np.flatnonzero(number == i) for i, name in enumerate(names)}
    return {name: rows for name, rows in found.items() if len(rows)}
