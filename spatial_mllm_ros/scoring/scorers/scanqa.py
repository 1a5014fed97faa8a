"""ScanQA (arXiv 2112.10482) as the Spatial-MLLM evaluation scores it, and SQA3D (arXiv 2210.07474)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spatial_mllm_ros.scoring.scorers.base import Figure, ScoredQuestion
from spatial_mllm_ros.scoring.scorers.captions import bleu, bleu_statistics, cider, rouge_l
from spatial_mllm_ros.scoring.scorers.intervals import bootstrap, wilson

NO_METEOR = (
    "METEOR: the published program is in Java and no maintained Python package gives its values; the METEOR in nltk "
    "is another version with other scores, and is not reported in its place."
)


def exact_match(_question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """1 where the unchanged prediction equals one of the answers."""
    return float(prediction in truths)


def figures(scored: Sequence[ScoredQuestion]) -> list[Figure]:
    """EM, BLEU-1..4, ROUGE-L and CIDEr; except for EM, full stops at the end of a prediction are left out."""
    texts = [item.prediction.rstrip(".") for item in scored]
    if not scored:
        return []
    columns = [[*bleu_statistics(text, item.truths)] for text, item in zip(texts, scored, strict=True)]
    means = np.stack(
        [
            np.array([rouge_l(text, item.truths) for text, item in zip(texts, scored, strict=True)]),
            np.array(cider(texts, [item.truths for item in scored])),
            np.ones(len(scored)),
        ],
        axis=1,
    )

    def evaluate(sums: np.ndarray) -> np.ndarray:
        return np.hstack([bleu(sums[:, :10]), sums[:, 10:12] / sums[:, 12:13]])

    statistics = np.hstack([np.array(columns), means])
    values = evaluate(statistics.sum(axis=0, keepdims=True))[0]
    low, high, method = bootstrap([item.group for item in scored], statistics, evaluate)
    names = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")
    rows = [
        Figure(name, float(values[i]), float(low[i]), float(high[i]), len(scored), method)
        for i, name in enumerate(names)
    ]
    return [*share_figures("EM", scored, [item.score or 0.0 for item in scored]), *rows]


def share_figures(name: str, scored: Sequence[ScoredQuestion], scores: Sequence[float]) -> list[Figure]:
    """The mean of scores that are 0 or 1, with Wilson's interval."""
    low, high = wilson(sum(scores), len(scored))
    return [Figure(name, sum(scores) / len(scored), low, high, len(scored), "Wilson")] if scored else []


# -- SQA3D -------------------------------------------------------------------------------------------------------------


def normalised(text: str) -> str:
    """The text in lower case, with white space collapsed and without full stops at its end."""
    return " ".join(text.lower().split()).rstrip(".").strip()


def sqa3d_exact_match(_question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """EM-1: the normalised prediction is one of the normalised answers."""
    return float(normalised(prediction) in {normalised(truth) for truth in truths})


def sqa3d_refined_match(prediction: str, truths: tuple[str, ...]) -> float:
    """Refined EM: without spaces, one text contains the other; an empty prediction matches nothing."""
    said = normalised(prediction).replace(" ", "")
    answers = [normalised(truth).replace(" ", "") for truth in truths]
    return float(bool(said) and any(answer and (said in answer or answer in said) for answer in answers))


def sqa3d_figures(scored: Sequence[ScoredQuestion]) -> list[Figure]:
    """EM-1 and refined EM over all questions, then EM-1 per type of question."""
    exact = [item.score or 0.0 for item in scored]
    refined = [sqa3d_refined_match(item.prediction, item.truths) for item in scored]
    rows = [*share_figures("EM-1", scored, exact), *share_figures("refined EM", scored, refined)]
    for kind in sorted({item.question_type for item in scored if item.question_type}):
        of_kind = [item for item in scored if item.question_type == kind]
        rows += share_figures(f"EM-1, {kind}", of_kind, [item.score or 0.0 for item in of_kind])
    return rows
