"""VSI-SUPER (arXiv 2511.04670) as lmms-eval scores it: long counting, counting while streaming, recall."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np

from spatial_mllm_ros.scoring.scorers.averages import grouped_figures
from spatial_mllm_ros.scoring.scorers.base import Figure, QuestionTypeError, ScoredQuestion
from spatial_mllm_ros.scoring.scorers.relative_accuracy import as_float, mra_of_error

COUNT, STREAMING, RECALL = "count", "count_streaming", "recall"
TYPES = (COUNT, STREAMING, RECALL)

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_LETTER = re.compile(r"[A-D]")


def score(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """Count: relative accuracy of the first number. Streaming: its mean over a JSON list. Recall: the first of A to D.

    As published, a list that is too short is compared as far as it goes, and "The answer is C" recalls A, the first
    of these letters in it. ``truths`` of a streaming question are its counts in order.

    Raises:
        UnscorableError: the type is unknown.
    """
    if question_type == COUNT:
        return _count_score(_first_number(prediction), as_float(truths[0]) or 0.0)
    if question_type == STREAMING:
        said = _list_of(prediction)
        pairs = zip(said, truths, strict=False)
        scores = [_count_score(_number_of(item), as_float(truth) or 0.0) for item, truth in pairs]
        return float(np.mean(scores)) if scores else 0.0
    if question_type == RECALL:
        return float(_first_letter(prediction) == _first_letter(truths[0]))
    raise QuestionTypeError(question_type, TYPES)


def figures(scored: Sequence[ScoredQuestion]) -> list[Figure]:
    """Per task, and averages over the tasks that were asked."""
    return grouped_figures(scored, TYPES, {name: (name,) for name in TYPES}, numeric=(COUNT, STREAMING))


def _count_score(said: float, truth: float) -> float:
    if truth == 0:
        return float(said == 0)
    return mra_of_error(abs(said - truth) / abs(truth))


def _first_number(text: str) -> float:
    match = _NUMBER.search(text)
    return float(match[0]) if match else 0.0


def _list_of(text: str) -> list[object]:
    try:
        items = json.loads(text)
    except ValueError:
        return []
    return items if isinstance(items, list) else []


def _number_of(item: object) -> float:
    return as_float(str(item)) or 0.0


def _first_letter(text: str) -> str:
    match = _LETTER.search(text.upper())
    return match[0] if match else ""
