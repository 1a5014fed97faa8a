"""Averages over questions of several types: per type, per group of types, macro and micro, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spatial_mllm_ros.scoring.scorers.base import Figure, ScoredQuestion
from spatial_mllm_ros.scoring.scorers.intervals import bootstrap, wilson


def grouped_figures(
    scored: Sequence[ScoredQuestion],
    types: Sequence[str],
    groups: Mapping[str, tuple[str, ...]],
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
        grouped = {name: mean_of_present([rows[column[m]] for m in members]) for name, members in groups.items()}
        rows += [grouped[name] for name in composites]
        for wanted in averages.values():
            of = [n for n, members in groups.items() if wanted is None or (members[0] in numeric) == wanted]
            mask = [wanted is None or (name in numeric) == wanted for name in types]
            with np.errstate(invalid="ignore"):
                micro = scores[:, mask].sum(axis=1) / counts[:, mask].sum(axis=1)
            macro = mean_of_present([grouped[name] for name in of]) if of else np.full(len(sums), np.nan)
            rows += [macro, micro]
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
            if np.isclose(bounds[0], bounds[1]):
                # One question, or all answers equally good: resampling shows no spread, which is not certainty.
                bounds = (*wilson(values[index] * questions, questions), "Wilson")
        found.append(Figure(name, float(values[index]), bounds[0], bounds[1], questions, bounds[2]))
    return found


def _members(
    name: str, types: Sequence[str], composites: Mapping[str, tuple[str, ...]], numeric: Sequence[str]
) -> Sequence[str]:
    if name in types:
        return (name,)
    if name in composites:
        return composites[name]
    which = name.rpartition(", ")[2]
    return [t for t in types if which == "all" or (t in numeric) == (which == "numeric")]


def mean_of_present(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the columns that are not NaN, NaN where all are."""
    stacked = np.stack(columns)
    present = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(present, stacked, 0.0).sum(axis=0) / present.sum(axis=0)
    return mean
