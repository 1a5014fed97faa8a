"""VSI-Bench (arXiv 2412.14171): four published rules for one answer, one summary with micro and macro averages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from spatial_mllm_ros.evaluation.scorers.base import Figure, QuestionTypeError, ScoredQuestion
from spatial_mllm_ros.evaluation.scorers.intervals import bootstrap, wilson
from spatial_mllm_ros.evaluation.scorers.numbers_in_text import first_number
from spatial_mllm_ros.evaluation.scorers.relative_accuracy import as_float, float32_mra, official_mra

NUMERIC_TYPES = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
DIRECTION_TYPES = ("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard")
CHOICE_TYPES = (*DIRECTION_TYPES, "object_rel_distance", "route_planning", "obj_appearance_order")
DIRECTION = "object_rel_direction"

_ANSWER_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def first_word(prediction: str) -> str:
    """What the official rule reads: the text before the first space, without full stops at its end."""
    return prediction.split(" ")[0].rstrip(".").strip()


def score_officially(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """The thinking-in-space rule: the first word is the option's letter or the number; see ``official_mra``.

    Raises:
        UnscorableError: unknown type, or a numeric truth of 0.
    """
    said, truth = first_word(prediction), truths[0]
    if question_type in CHOICE_TYPES:
        return float(said.lower() == truth.lower())
    return _numeric(question_type, as_float(said), as_float(truth), official_mra)


def score_as_lmms_eval_2026_08(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """As the official rule for choices; for numbers, the first number or number word anywhere in the text.

    Raises:
        UnscorableError: unknown type, or a numeric truth of 0.
    """
    if question_type in CHOICE_TYPES:
        return score_officially(question_type, prediction, truths)
    return _numeric(question_type, first_number(prediction), as_float(truths[0]), official_mra)


def score_as_spatial_mllm(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """The rule of Spatial-MLLM v1.0 and v1.1: the whole text of the last <answer> block, lower-cased.

    Raises:
        UnscorableError: unknown type.
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


def grouped_figures(
    scored: Sequence[ScoredQuestion],
    types: Sequence[str],
    groups: dict[str, tuple[str, ...]],
    *,
    numeric: Sequence[str],
) -> list[Figure]:
    """One figure per type, one per group of several types, and macro and micro averages.

    A group is the mean of the means of its types that occur; macro is the mean of the groups that occur.

    Args:
        types: all types, in the order of the table.
        groups: name -> types; each type in exactly one group.
        numeric: types whose scores are relative accuracies and not just 0 or 1.
    """
    kept = [item for item in scored if item.score is not None]
    column = {name: i for i, name in enumerate(types)}
    statistics = np.zeros((len(kept), 2 * len(types)))  # sums of scores, then counts
    for row, item in enumerate(kept):
        statistics[row, column[item.question_type]] = item.score
        statistics[row, len(types) + column[item.question_type]] = 1
    composites = {name: members for name, members in groups.items() if len(members) > 1}
    averages = {"choice": False, "numeric": True, "all": None}

    def evaluate(sums: np.ndarray) -> np.ndarray:
        scores, counts = sums[:, : len(types)], sums[:, len(types) :]
        with np.errstate(invalid="ignore"):
            means = scores / counts
        rows = [means[:, column[name]] for name in types]
        grouped = {name: _mean_of([rows[column[m]] for m in members]) for name, members in groups.items()}
        rows += [grouped[name] for name in composites]
        for wanted in averages.values():
            of = [n for n, members in groups.items() if wanted is None or (members[0] in numeric) == wanted]
            mask = [wanted is None or (name in numeric) == wanted for name in types]
            with np.errstate(invalid="ignore"):
                micro = scores[:, mask].sum(axis=1) / counts[:, mask].sum(axis=1)
            rows += [_mean_of([grouped[name] for name in of]), micro]
        return np.stack(rows, axis=1)

    names = [*types, *composites, *(f"{kind}, {which}" for which in averages for kind in ("macro", "micro"))]
    totals = statistics.sum(axis=0, keepdims=True)
    values = evaluate(totals)[0]
    low, high, method = bootstrap([item.group for item in kept], statistics, evaluate)
    counts = totals[0, len(types) :]
    found = []
    for index, name in enumerate(names):
        if np.isnan(values[index]):
            continue
        members = _members(name, types, composites, numeric)
        questions = int(sum(counts[column[m]] for m in members))
        if name in column and name not in numeric:
            bounds = (*wilson(totals[0, column[name]], questions), "Wilson")
        else:
            bounds = (float(low[index]), float(high[index]), method)
        found.append(Figure(name, float(values[index]), bounds[0], bounds[1], questions, bounds[2]))
    return found


def _members(
    name: str, types: Sequence[str], composites: dict[str, tuple[str, ...]], numeric: Sequence[str]
) -> Sequence[str]:
    if name in types:
        return (name,)
    if name in composites:
        return composites[name]
    which = name.rpartition(", ")[2]
    return [t for t in types if which == "all" or (t in numeric) == (which == "numeric")]


def _mean_of(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the columns that are not NaN, NaN where all are."""
    stacked = np.stack(columns)
    present = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(present, stacked, 0.0).sum(axis=0) / present.sum(axis=0)
    return mean
