"""BLEU, ROUGE-L and CIDEr of short answers, equal to the widely used COCO caption code down to its smoothing terms.

Words are what stands between spaces: the Spatial-MLLM evaluation neither tokenises nor lower-cases.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MAX_N = 4
_TINY, _SMALL = 1e-15, 1e-9  # what the COCO code adds to counts, so that no share is 0 / 0
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0

Ngram = tuple[str, ...]


def ngram_counts(words: Sequence[str]) -> list[Counter[Ngram]]:
    """How often each run of 1, 2, 3 and 4 words occurs."""
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, MAX_N + 1)]


def bleu_statistics(prediction: str, references: Sequence[str]) -> np.ndarray:
    """float64 [10]: matches and possible matches for n = 1..4, then both lengths; they add up over questions.

    The reference's length is that of the reference nearest in length, the shorter of two equally near ones.
    """
    said, texts = prediction.split(), [reference.split() for reference in references]
    counts, allowed = ngram_counts(said), [ngram_counts(text) for text in texts]
    matches, possible = [], []
    for n, of_n in enumerate(counts):
        matches.append(sum(min(c, max(a[n][gram] for a in allowed)) for gram, c in of_n.items()))
        possible.append(max(0, len(said) - n))
    nearest = min((abs(len(text) - len(said)), len(text)) for text in texts)[1]
    return np.array([*matches, *possible, len(said), nearest], dtype=np.float64)


def bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU-1..4 [r, 4] of summed statistics [r, 10] (Papineni et al., 2002), with the brevity penalty."""
    shares = (sums[:, :4] + _TINY) / (sums[:, 4:8] + _SMALL)
    scores = np.cumprod(shares, axis=1) ** (1.0 / np.arange(1, MAX_N + 1))
    ratio = (sums[:, 8] + _TINY) / (sums[:, 9] + _SMALL)
    penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    penalised: np.ndarray = scores * penalty[:, None]
    return penalised


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F measure (beta 1.2) of the longest common subsequence (Lin, 2004), best precision and best recall apart."""
    said = prediction.split(" ")
    precision = recall = 0.0
    for reference in references:
        words = reference.split(" ")
        common = _common_length(said, words)
        precision, recall = max(precision, common / len(said)), max(recall, common / len(words))
    if precision == 0 or recall == 0:
        return 0.0
    weight = _ROUGE_BETA**2
    return (1 + weight) * precision * recall / (recall + weight * precision)


def _common_length(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for j, candidate in enumerate(other, 1):
            diagonal, row[j] = row[j], diagonal + 1 if word == candidate else max(row[j], row[j - 1])
    return row[-1]


@dataclass(frozen=True)
class _Weighted:
    """tf-idf weights per n, their norms, and the length that the penalty uses."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int


def cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D per question, 0..10 (Vedantam et al., 2015); document frequencies come from ``references``.

    As in the COCO code, the length in the penalty counts pairs of words.
    """
    counted = [[ngram_counts(text.split()) for text in texts] for texts in references]
    documents: Counter[Ngram] = Counter()
    for texts in counted:
        documents.update({gram for text in texts for of_n in text for gram in of_n})
    log_total = math.log(len(references)) if references else 0.0
    scores = []
    for prediction, texts in zip(predictions, counted, strict=True):
        said = _weighted(ngram_counts(prediction.split()), documents, log_total)
        similar = [_similarity(said, _weighted(text, documents, log_total)) for text in texts]
        scores.append(10.0 * sum(similar) / len(similar))
    return scores


def _weighted(counts: Sequence[Counter[Ngram]], documents: Mapping[Ngram, int], log_total: float) -> _Weighted:
    weights = [
        {gram: count * (log_total - math.log(max(1, documents.get(gram, 0)))) for gram, count in of_n.items()}
        for of_n in counts
    ]
    norms = [math.sqrt(sum(weight**2 for weight in of_n.values())) for of_n in weights]
    return _Weighted(weights, norms, sum(counts[1].values()))


def _similarity(said: _Weighted, reference: _Weighted) -> float:
    penalty = math.exp(-((said.length - reference.length) ** 2) / (2 * _CIDER_SIGMA**2))
    total = 0.0
    for n in range(MAX_N):
        of_reference = reference.weights[n]
        product = sum(
            min(weight, of_reference.get(gram, 0.0)) * of_reference.get(gram, 0.0)
            for gram, weight in said.weights[n].items()
        )
        norms = said.norms[n] * reference.norms[n]
        total += product / norms if norms else product
    return total * penalty / MAX_N
