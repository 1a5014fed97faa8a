"""The page of a benchmark run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spatial_mllm_ros.report.page import Page, PictureRef, QuestionRow, Tile, verdict_of, write_page
from spatial_mllm_ros.report.parts import (
    facts_of,
    latency_charts,
    latency_tile,
    random_weights_notice,
    score_charts,
    score_tile,
)
from spatial_mllm_ros.report.thumbnails import data_uri
from spatial_mllm_ros.scoring.datasets.question import BenchmarkData, BenchmarkQuestion
from spatial_mllm_ros.scoring.runner.results_file import StoredAnswer
from spatial_mllm_ros.scoring.score_table import ScoreTable, scored_question
from spatial_mllm_ros.scoring.scorers.base import Scorer
from spatial_mllm_ros.storage import bytes_sha256, json_sha256

STRIPS_FOLDER = "frames"
_PICTURE_BYTES = 8 << 20  # of JPEGs on one page, so that a page of 5,000 questions still opens on a phone


def strip_key(clip: Path) -> str:
    """The name of the picture of a clip's frames, a hash of the path."""
    return bytes_sha256(str(clip).encode())[:12]


def write_benchmark_page(
    path: Path,
    data: BenchmarkData,
    answers: Mapping[str, StoredAnswer],
    tables: Sequence[ScoreTable],
    scorer: Scorer,
    *,
    model: Mapping[str, Any],
    configuration: Mapping[str, Any],
) -> None:
    """Writes the page, with strips of frames from the folder ``frames`` beside it as far as they fit.

    Args:
        tables: one for each scorer.
        scorer: gives the verdicts of the questions.
        model: the fields of ``ModelIdentity``.

    Raises:
        OSError: the file cannot be written.
    """
    pictures = _pictures(path.parent / STRIPS_FOLDER, data.questions)
    rows = [_row(question, answers.get(question.id), scorer, pictures) for question in data.questions]
    seconds = [answer.seconds for answer in answers.values()]
    blocks = tuple(table.block() for table in tables)
    write_page(
        path,
        Page(
            title=f"{data.benchmark}, {data.split}",
            subtitle=f"{model['name']} ({model['architecture']}), {tables[0].frames}, scorer {scorer.name}",
            notice=random_weights_notice(model),
            tiles=_tiles(tables[0], len(data.problems), seconds),
            tables=blocks,
            charts=(*score_charts(blocks), *latency_charts(seconds)),
            questions=tuple(rows),
            pictures=pictures,
            facts=facts_of(
                model,
                configuration,
                [("model", str(model["sha256"])), ("configuration", json_sha256(configuration))],
            ),
            problems=tuple(f"{p.place}: {p.cause}: {p.message}" for p in data.problems),
        ),
    )


def _tiles(table: ScoreTable, problems: int, seconds: Sequence[float]) -> tuple[Tile, ...]:
    by_name = {figure.name: figure for figure in table.figures}
    leading = [name for name in ("macro, all", "micro, all") if name in by_name] or list(by_name)[:2]
    left_out = f"{problems} could not be read" if problems else "all of the split"
    return (
        *(score_tile(f"{name} ({table.scorer.name})", by_name[name]) for name in leading),
        Tile("Answered", f"{table.answered:,}", f"of {table.questions:,}; {left_out}"),
        latency_tile(seconds),
    )


def _pictures(folder: Path, questions: Sequence[BenchmarkQuestion]) -> dict[str, str]:
    found: dict[str, str] = {}
    size = 0
    for clip in dict.fromkeys(question.video for question in questions):
        key = strip_key(clip)
        path = folder / f"{key}.jpg"
        if path.is_file() and size + path.stat().st_size <= _PICTURE_BYTES:
            size += path.stat().st_size
            found[key] = data_uri(path.read_bytes())
    return found


def _row(
    question: BenchmarkQuestion, answer: StoredAnswer | None, scorer: Scorer, pictures: Mapping[str, str]
) -> QuestionRow:
    score = None if answer is None else scored_question(scorer, question, answer.prediction).score
    key = strip_key(question.video)
    evidence: tuple[PictureRef, ...] = ()
    details: tuple[tuple[str, str], ...] = (("scene", question.scene),)
    if answer is not None:
        listed = ", ".join(map(str, answer.frames))
        evidence = (PictureRef(key, f"frames {listed}", is_strip=True),) if key in pictures else ()
        details = (*details, ("prompt", answer.prompt), *(() if evidence else (("frames", listed),)))
    return QuestionRow(
        number=question.id,
        kind=question.question_type,
        question=question.text,
        options=question.options,
        answer="" if answer is None else question.in_words(answer.prediction),
        truth=" / ".join(map(question.in_words, question.truths[:3])),
        score=score,
        verdict=verdict_of(score, answered=answer is not None),
        seconds=None if answer is None else answer.seconds,
        evidence=evidence,
        details=details,
    )
