"""Reads a folder with a benchmark as it is published: checked questions, and a list of the problems met."""

from __future__ import annotations

import logging
from pathlib import Path

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.scoring.datasets.layouts import LAYOUTS
from spatial_mllm_ros.scoring.datasets.question import BenchmarkData, BenchmarkQuestion, Problem
from spatial_mllm_ros.scoring.datasets.rows import RowError, read_rows

_log = logging.getLogger(__name__)

LAYOUT_NAMES = tuple(LAYOUTS)


def read_benchmark(layout: str, folder: Path, *, split: str = "", videos: Path | None = None) -> BenchmarkData:
    """Reads the questions of ``folder``; rows that cannot be used are in ``problems`` and in the log.

    Args:
        layout: one of ``LAYOUT_NAMES``.
        folder: holds the annotation files with their published names.
        split: "" for the layout's default.
        videos: folder of the videos; ``folder`` itself if not given.

    Raises:
        ConfigurationError: the layout or the split is unknown.
        SourceError: the folder has no annotation file, one that cannot be read, or not one usable question.
    """
    if layout not in LAYOUTS:
        raise ConfigurationError(f"There is no layout {layout!r}; known: {', '.join(LAYOUT_NAMES)}.")
    rule = LAYOUTS[layout]
    split = split or rule.splits[0]
    if split not in rule.splits:
        raise ConfigurationError(f"{layout} has no split {split!r}; it has: {', '.join(rule.splits)}.")
    files = rule.files(folder, split) if folder.is_dir() else []
    if not files:
        raise SourceError(
            f"{folder} holds no annotation file of {layout} ({split}); give the folder with the published files."
        )
    answers = rule.answers(folder, split)
    questions: dict[str, BenchmarkQuestion] = {}
    places: dict[str, str] = {}
    problems: list[Problem] = []
    for path in files:
        for row in read_rows(path, key=rule.key):
            if isinstance(row, Problem):
                problems.append(row)
                continue
            if not rule.in_split(row.values, split):
                continue
            try:
                question = rule.question(row.values, videos or folder, answers)
                if question.id in questions:
                    raise RowError("duplicate_id", f"the id {question.id!r} was used already in {places[question.id]}.")
            except RowError as error:
                problems.append(Problem(row.place, error.cause, str(error)))
                continue
            questions[question.id], places[question.id] = question, row.place
    for problem in problems:
        _log.warning("%s: question left out (%s): %s", problem.place, problem.cause, problem.message)
    if not questions:
        raise SourceError(f"Not one question of {folder} can be used; {len(problems)} were left out, see the warnings.")
    return BenchmarkData(rule.benchmark, split, tuple(questions.values()), tuple(problems))
