"""Scores of answers about a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spatial_mllm_ros.answering.answer import Answer, Status
from spatial_mllm_ros.provenance import versions
from spatial_mllm_ros.recordings.question_files import TimedQuestion
from spatial_mllm_ros.replay.results import AskedQuestion, Report
from spatial_mllm_ros.scoring.score_table import ScoreTable
from spatial_mllm_ros.scoring.scorers.averages import grouped_figures
from spatial_mllm_ros.scoring.scorers.base import Figure, ScoredQuestion, ScorerInfo
from spatial_mllm_ros.scoring.scorers.relative_accuracy import mra_of_error
from spatial_mllm_ros.scoring.scorers.scanqa import normalised

RULE = (
    "numbers: right within the stated tolerance, or without one the mean relative accuracy of VSI-Bench; options: the "
    "right one; texts: equal after lower-casing and trimming; no answer counts 0"
)
SCORER = ScorerInfo("replay", "recordings", RULE, "this package")


def score_of(timed: TimedQuestion, answer: Answer) -> float | None:
    """The score of one answer in [0, 1], None where no truth is known; see ``RULE``."""
    truth = timed.truth
    if truth is None:
        return None
    if answer.status is not Status.OK:
        return 0.0
    if timed.question.options:
        return float(answer.choice is not None and answer.choice == timed.right_option)
    if not isinstance(truth, (int, float)):
        return float(normalised(answer.text) == normalised(str(truth)))
    if answer.value is None:
        return 0.0
    error = abs(answer.value - truth)
    if timed.tolerance is not None:
        return float(error <= timed.tolerance)
    return float(error == 0) if truth == 0 else mra_of_error(error / abs(truth))


def replay_table(
    recordings: Sequence[tuple[str, Sequence[AskedQuestion]]], *, model: str, frames: int
) -> ScoreTable | None:
    """The scores of all questions with a truth, over all recordings; None where there is none.

    Args:
        recordings: name and answered questions of each.
        frames: most frames of an evidence set.
    """
    scored = [
        ScoredQuestion(item.asked.question_type, name, item.answer.text, (item.asked.truth_text,), item.score)
        for name, asked in recordings
        for item in asked
        if item.score is not None
    ]
    if not scored:
        return None
    names = ", ".join(name for name, _ in recordings)
    return ScoreTable(
        scorer=SCORER,
        split=names,
        model=model,
        frames=f"evidence sets of at most {frames} frames",
        questions=len(scored),
        answered=len(scored),
        unscorable=0,
        figures=tuple(_figures(scored)),
    )


def table_of(report: Report, *, frames: int) -> ScoreTable | None:
    """The same for one recording."""
    return replay_table([(report.source_name, report.questions)], model=str(report.model["name"]), frames=frames)


def combined_json(reports: Sequence[Report], *, frames: int) -> dict[str, Any]:
    """Several replays in one: their scores together, and the hashes of what made them."""
    table = replay_table(
        [(r.source_name, r.questions) for r in reports], model=str(reports[0].model["name"]), frames=frames
    )
    return {
        "recordings": [
            {"name": r.source_name, "hashes": dict(r.hashes), "questions": len(r.questions)} for r in reports
        ],
        "scores": [table.to_json()] if table else [],
        "model": dict(reports[0].model),
        "configuration": dict(reports[0].configuration),
        "versions": versions(),
    }


def _figures(scored: Sequence[ScoredQuestion]) -> list[Figure]:
    types = sorted({item.question_type for item in scored})
    graded = {item.question_type for item in scored if item.score not in (0.0, 1.0)}
    rows = grouped_figures(scored, types, {name: (name,) for name in types}, numeric=sorted(graded))
    wanted = {*types, "macro, all", "micro, all"}
    return [figure for figure in rows if figure.name in wanted]
