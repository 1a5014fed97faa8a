"""VSI-Bench (arXiv 2412.14171): four published rules for one answer, one summary with micro and macro averages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from spatial_mllm_ros.scoring.scorers.averages import grouped_figures
from spatial_mllm_ros.scoring.scorers.base import Figure, QuestionTypeError, ScoredQuestion
from spatial_mllm_ros.scoring.scorers.numbers_in_text import first_number
from spatial_mllm_ros.scoring.scorers.relative_accuracy import as_float, float32_mra, official_mra

NUMERIC_TYPES = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
DIRECTION_TYPES = ("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard")
CHOICE_TYPES = (*DIRECTION_TYPES, "object_rel_distance", "route_planning", "obj_appearance_order")
DIRECTION = "object_rel_direction"

_ANSWER_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def first_word(prediction: str) -> str:
    """The text before the first space, without full stops at its end; the official rule reads only this."""
    return prediction.split(" ")[0].rstrip(".").strip()


def score_officially(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """The thinking-in-space rule: the first word is the option's letter or the number; see ``official_mra``.

    Raises:
        UnscorableError: the type is unknown, or a numeric truth is 0.
    """
    said, truth = first_word(prediction), truths[0]
    if question_type in CHOICE_TYPES:
        return float(said.lower() == truth.lower())
    return _numeric(question_type, as_float(said), as_float(truth), official_mra)


def score_as_lmms_eval_2026_08(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """As the official rule for choices; for numbers, the first number or number word anywhere in the text.

    Raises:
        UnscorableError: the type is unknown, or a numeric truth is 0.
    """
    if question_type in CHOICE_TYPES:
        return score_officially(question_type, prediction, truths)
    return _numeric(question_type, first_number(prediction), as_float(truths[0]), official_mra)


def score_as_spatial_mllm(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """The rule of Spatial-MLLM v1.0 and v1.1: the whole text of the last <answer> block, lower-cased.

    Raises:
        UnscorableError: the type is unknown.
    """
    said, truth = clean_text(prediction), clean_text(truths[0])
    if question_type in CHOICE_TYPES:
        return float(said.strip() == truth.strip())
    numbers = [as_float(text.replace(",", "")) for text in (said, truth)]
    return _numeric(question_type, numbers[0], numbers[1], float32_mra)


def clean_text(text: str) -> str:
    """The last <answer> block, or all of the text: white space collapsed, full stops at the end off, lower case."""
    blocks = _ANSWER_BLOCK.findall(text)
    return " ".join((blocks[-1] if blocks else text).split()).rstrip(".").lower()


def _numeric(
    question_type: str, said: float | None, truth: float | None, mra: Callable[[float, float], float]
) -> float:
    if question_type not in NUMERIC_TYPES:
        raise QuestionTypeError(question_type, (*NUMERIC_TYPES, *CHOICE_TYPES))
    return 0.0 if said is None or truth is None else mra(said, truth)


def figures(scored: Sequence[ScoredQuestion]) -> list[Figure]:
    """Per type, then the averages: macro over the types (the three levels of direction are one), micro over questions.

    ``macro`` over all types is the benchmark's published average.
    """
    groups: dict[str, tuple[str, ...]] = {DIRECTION: DIRECTION_TYPES}
    groups |= {kind: (kind,) for kind in (*NUMERIC_TYPES, *CHOICE_TYPES[3:])}
    return grouped_figures(scored, (*NUMERIC_TYPES, *CHOICE_TYPES), groups, numeric=NUMERIC_TYPES)
