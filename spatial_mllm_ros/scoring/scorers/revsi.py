"""ReVSI (arXiv 2604.24300) as lmms-eval scores it: the official VSI-Bench reading of stripped text, seven groups."""

from __future__ import annotations

from collections.abc import Sequence

from spatial_mllm_ros.scoring.scorers.averages import grouped_figures
from spatial_mllm_ros.scoring.scorers.base import Figure, QuestionTypeError, ScoredQuestion, UnscorableError
from spatial_mllm_ros.scoring.scorers.relative_accuracy import as_float, official_mra
from spatial_mllm_ros.scoring.scorers.vsi_bench import first_word

NUMERIC_TYPES = (
    *("object_counting_single", "object_counting_multiple", "object_abs_distance", "object_size_estimation"),
    *("room_size_estimation_single", "room_size_estimation_multiple"),
)
CHOICE_TYPES = (
    *("object_rel_direction_forward_easy", "object_rel_direction_backward_easy"),
    *("object_rel_direction_forward_hard", "object_rel_direction_backward_hard"),
    *("object_rel_distance_closest", "object_rel_distance_farthest", "route_planning"),
)
GROUPS = {
    "object_counting": NUMERIC_TYPES[:2],
    "object_abs_distance": ("object_abs_distance",),
    "object_size_estimation": ("object_size_estimation",),
    "room_size_estimation": NUMERIC_TYPES[4:],
    "object_rel_direction": CHOICE_TYPES[:4],
    "object_rel_distance": CHOICE_TYPES[4:6],
    "route_planning": ("route_planning",),
}


def score(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """Exact match or relative accuracy of the first word; 0 where it cannot be computed, as for a truth of 0.

    Raises:
        UnscorableError: the type is unknown.
    """
    said, truth = first_word(prediction.strip()), truths[0]
    if question_type in CHOICE_TYPES:
        return float(said.lower() == truth.lower())
    if question_type not in NUMERIC_TYPES:
        raise QuestionTypeError(question_type, (*NUMERIC_TYPES, *CHOICE_TYPES))
    number, wanted = as_float(said), as_float(truth)
    if number is None or wanted is None:
        return 0.0
    try:
        return official_mra(number, wanted)
    except UnscorableError:
        return 0.0


def figures(scored: Sequence[ScoredQuestion]) -> list[Figure]:
    """Per type, per group, and averages; ``macro, all`` is the mean of the seven groups, as published."""
    return grouped_figures(scored, (*NUMERIC_TYPES, *CHOICE_TYPES), GROUPS, numeric=NUMERIC_TYPES)
