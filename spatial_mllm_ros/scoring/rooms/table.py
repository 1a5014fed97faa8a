"""Scores of several columns on the same questions: per type and on average, with intervals, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion
from spatial_mllm_ros.scoring.scorers.averages import mean_of_present
from spatial_mllm_ros.scoring.scorers.base import Figure
from spatial_mllm_ros.scoring.scorers.intervals import bootstrap, wilson
from spatial_mllm_ros.scoring.scorers.vsi_bench import (
    CHOICE_TYPES,
    DIRECTION,
    DIRECTION_TYPES,
    NUMERIC_TYPES,
    first_word,
    score_officially,
)

MACRO = "macro"
_TYPES = (*NUMERIC_TYPES, *CHOICE_TYPES, QuestionType.PRESENCE.value)
#: The benchmark's eight tasks; the three levels of direction are one of them, presence is none of them.
_TASKS = ((*NUMERIC_TYPES, *CHOICE_TYPES[len(DIRECTION_TYPES) :]), DIRECTION_TYPES)
#: Rows of a table, in order.
ROWS = (*NUMERIC_TYPES, *DIRECTION_TYPES, DIRECTION, *CHOICE_TYPES[len(DIRECTION_TYPES) :], MACRO, _TYPES[-1])
_WHOLE_POINTS = 100.0


@dataclass(frozen=True)
class Comparison:
    """Scores of all columns on the same questions.

    Attributes:
        columns: row name -> figure, per column; fractions in [0, 1]. A row without a question is absent.
        differences: ``differences[i][j]``: the same for column i minus column j, from the same resampled rooms.
    """

    columns: tuple[dict[str, Figure], ...]
    differences: tuple[tuple[dict[str, Figure], ...], ...]


def score_answer(question: SceneQuestion, text: str) -> float:
    """0..1 by the official rules of VSI-Bench; presence, which it does not have, as one of its choices."""
    if question.type is QuestionType.PRESENCE:
        return float(first_word(text).lower() == question.truth.lower())
    return score_officially(question.type.value, text, (question.truth,))


def compare(questions: Sequence[SceneQuestion], scores: np.ndarray) -> Comparison:
    """The table of ``scores`` float64 [columns, questions].

    Intervals are 95 % percentile intervals of a bootstrap over rooms with the same draws for all columns: differences
    are paired. Where every answer of a row is right or every one wrong, Wilson's interval stands in.
    """
    columns, count = scores.shape
    at_type = {name: n for n, name in enumerate(_TYPES)}
    kinds = np.array([at_type[question.type.value] for question in questions], int)
    width = len(_TYPES)
    statistics = np.zeros((count, (columns + 1) * width))  # sums of scores per column and type, then counts per type
    at = np.arange(count)
    for column in range(columns):
        statistics[at, column * width + kinds] = scores[column]
    statistics[at, columns * width + kinds] = 1

    def rows_of(sums: np.ndarray) -> np.ndarray:
        """[r, d] -> [r, columns, rows]."""
        parts = sums.reshape(len(sums), columns + 1, width)
        with np.errstate(invalid="ignore"):
            means = parts[:, :columns] / parts[:, columns:]
        by_name = {name: means[..., n] for name, n in at_type.items()}
        by_name[DIRECTION] = mean_of_present([by_name[name] for name in DIRECTION_TYPES])
        by_name[MACRO] = mean_of_present([*(by_name[name] for name in _TASKS[0]), by_name[DIRECTION]])
        return np.stack([by_name[name] for name in ROWS], axis=-1)

    def everything(sums: np.ndarray) -> np.ndarray:
        rows = rows_of(sums)
        differences = rows[:, :, None] - rows[:, None]
        return np.concatenate([rows.reshape(len(sums), -1), differences.reshape(len(sums), -1)], axis=1)

    totals = statistics.sum(axis=0, keepdims=True)
    values = everything(totals)[0]
    low, high, method = bootstrap([question.scene for question in questions], statistics, everything)
    asked = {name: int(totals[0, columns * width + n]) for name, n in at_type.items()}
    asked[DIRECTION] = sum(asked[name] for name in DIRECTION_TYPES)
    asked[MACRO] = sum(asked[name] for name in (*_TASKS[0], *DIRECTION_TYPES))

    def figures(start: int, *, fraction: bool) -> dict[str, Figure]:
        found = {}
        for n, name in enumerate(ROWS, start):
            if np.isnan(values[n]):
                continue
            bounds, how = (float(low[n]), float(high[n])), method
            if fraction and bounds[0] == bounds[1] and values[n] in (0.0, 1.0):
                bounds, how = wilson(values[n] * asked[name], asked[name]), "Wilson"
            found[name] = Figure(name, float(values[n]), *bounds, asked[name], how)
        return found

    size = len(ROWS)
    return Comparison(
        tuple(figures(column * size, fraction=True) for column in range(columns)),
        tuple(
            tuple(figures((columns + i * columns + j) * size, fraction=False) for j in range(columns))
            for i in range(columns)
        ),
    )


def text_table(names: Sequence[str], columns: Sequence[dict[str, Figure]], *, signed: bool = False) -> list[str]:
    """A Markdown table in percent; ± is half the width of the 95 % interval."""
    rows = [name for name in ROWS if any(name in column for column in columns)]
    cells = [["", *names, "questions"]]
    for name in rows:
        figures = [column.get(name) for column in columns]
        asked = next(figure.questions for figure in figures if figure is not None)
        cells.append([name, *(_cell(figure, signed=signed) for figure in figures), str(asked)])
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    aligned = [
        [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        for row in cells
    ]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return [f"| {' | '.join(row)} |" for row in (aligned[0], rule, *aligned[1:])]


def _cell(figure: Figure | None, *, signed: bool) -> str:
    if figure is None:
        return "-"
    half = _WHOLE_POINTS * (figure.high - figure.low) / 2
    value = _WHOLE_POINTS * figure.value
    return f"{value:{'+' if signed else ''}.1f} ± {half:.1f}"
