"""The page of one or several replayed recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spatial_mllm_ros.answering.answer import Answer, Status
from spatial_mllm_ros.replay.charts import coverage_chart, map_chart
from spatial_mllm_ros.replay.results import AskedQuestion, Report
from spatial_mllm_ros.replay.scores import replay_table
from spatial_mllm_ros.report.page import ChartBlock, Page, PictureRef, QuestionRow, Tile, verdict_of, write_page
from spatial_mllm_ros.report.parts import (
    facts_of,
    latency_charts,
    latency_tile,
    random_weights_notice,
    score_charts,
    score_tile,
)
from spatial_mllm_ros.report.thumbnails import data_uri
from spatial_mllm_ros.scoring.score_table import ScoreTable

_MAP_LEGEND = (
    ("selected", "only selected frames see it; numbered: where they were taken"),
    ("uniform", "only uniform frames see it"),
    ("both", "both see it"),
    ("neither", "only other frames see it"),
)


def write_replay_page(path: Path, reports: Sequence[Report], *, frames: int) -> None:
    """Writes the page.

    Args:
        reports: at least one, with their traces.
        frames: most frames of an evidence set.

    Raises:
        OSError: the file cannot be written.
    """
    several = len(reports) > 1
    model = reports[0].model
    table = replay_table([(r.source_name, r.questions) for r in reports], model=str(model["name"]), frames=frames)
    tables = (table.block(),) if table is not None else ()
    seconds = [q.answer.timings.total_ns / 1e9 for report in reports for q in report.questions]
    notice = random_weights_notice(model)
    write_page(
        path,
        Page(
            title=f"Replay of {', '.join(report.source_name for report in reports)}",
            subtitle=f"{model['name']} ({model['architecture']}), evidence sets of at most {frames} frames",
            notice=f"{notice} The selection of frames is real." if notice else "",
            tiles=_tiles(reports, table, seconds),
            tables=tables,
            charts=(
                *score_charts(tables),
                *latency_charts(seconds),
                *(
                    chart
                    for number, report in enumerate(reports)
                    for chart in _recording_charts(report, number, several)
                ),
            ),
            questions=tuple(
                _row(report, recording, number, item, several)
                for recording, report in enumerate(reports)
                for number, item in enumerate(report.questions, 1)
            ),
            pictures={
                _key(number, stamp_ns): data_uri(jpeg)
                for number, report in enumerate(reports)
                for stamp_ns, jpeg in (report.trace.thumbnails.items() if report.trace else ())
            },
            facts=facts_of(model, reports[0].configuration, _hashes(reports)),
            problems=tuple(_left_out(reports)),
        ),
    )


def _recording_charts(report: Report, number: int, several: bool) -> list[ChartBlock]:
    trace, coverage = report.trace, report.coverage
    if trace is None or coverage is None:
        return []
    of = f" of {report.source_name}" if several else ""
    charts = []
    if report.coverage_over_time:
        samples = report.coverage_over_time
        svg = coverage_chart(
            [(sample.stamp_ns - trace.first_stamp_ns) / 1e9 for sample in samples],
            [sample.selected for sample in samples],
            [sample.uniform for sample in samples],
            [sample.total for sample in samples],
            name=f"coverage-{number}",
        )
        size = (
            f"{100 * coverage.voxel_size:.3g} cm" if coverage.unit == "m" else f"{coverage.voxel_size:.3g} (relative)"
        )
        charts.append(ChartBlock(f"Coverage over time{of}", svg, f"Voxels of {size}, all on the final grid."))
    svg = map_chart(
        [stamp for stamp in report.selection.stamps_ns if stamp in {frame.stamp_ns for frame in trace.seen}],
        trace.seen,
        coverage,
        trace.fine_voxel_size,
        name=f"map-{number}",
    )
    share = 100 / max(coverage.total, 1)
    caption = (
        f"Of {coverage.total:,} voxels the {len(report.selection.stamps_ns)} selected frames see {coverage.selected:,} "
        f"({share * coverage.selected:.1f} %), as many uniform ones {coverage.uniform:,} "
        f"({share * coverage.uniform:.1f} %), an offline greedy choice {coverage.offline_greedy:,} "
        f"({share * coverage.offline_greedy:.1f} %)."
    )
    charts.append(ChartBlock(f"Seen from above{of}", svg, caption, _MAP_LEGEND))
    return charts


def _tiles(reports: Sequence[Report], table: ScoreTable | None, seconds: Sequence[float]) -> tuple[Tile, ...]:
    tiles = []
    if table is not None:
        overall = next(figure for figure in table.figures if figure.name == "macro, all")
        tiles.append(score_tile("Score, mean of the types", overall, f"{table.answered} questions"))
    frames = sum(report.frames for report in reports)
    tiles.append(
        Tile("Frames read", f"{frames:,}", f"{sum(r.coverage.candidates for r in reports if r.coverage):,} placed")
    )
    covered = [report.coverage for report in reports if report.coverage is not None]
    if covered:
        share = sum(c.selected for c in covered) / max(1, sum(c.total for c in covered))
        uniform = sum(c.uniform for c in covered) / max(1, sum(c.total for c in covered))
        tiles.append(Tile("Scene shown", f"{100 * share:.1f} %", f"uniform frames: {100 * uniform:.1f} %"))
    if seconds:
        tiles.append(latency_tile(seconds))
    spent_s = sum(report.read_ns + report.process_ns for report in reports) / 1e9
    tiles.append(Tile("Replay speed", f"{frames / max(spent_s, 1e-9):,.0f} frames/s", "without the questions"))
    return tuple(tiles)


def _row(report: Report, recording: int, number: int, item: AskedQuestion, several: bool) -> QuestionRow:
    answer, trace = item.answer, report.trace
    first_ns = trace.first_stamp_ns if trace else 0
    timings = answer.timings
    parts = ", ".join(
        f"{name} {getattr(timings, f'{name}_ns') / 1e9:.3f} s"
        for name in ("queued", "selection", "vision", "first_token")
    )
    details = [
        ("asked", f"{(item.stamp_ns - first_ns) / 1e9:.2f} s into {report.source_name}"),
        ("status", f"{answer.status.name}. {answer.message}".strip()),
        ("confidence", f"{answer.confidence:.3f} (the model's own, not calibrated)"),
        ("timings", f"{parts}, total {timings.total_ns / 1e9:.3f} s"),
        ("prompt", answer.prompt),
    ]
    shown = trace.thumbnails if trace else {}
    return QuestionRow(
        number=f"{recording + 1}.{number}" if several else str(number),
        kind=item.asked.question_type,
        question=item.asked.question.text,
        options=item.asked.question.options,
        answer=_said(answer) or answer.status.name,
        truth=item.asked.truth_text,
        score=item.score,
        verdict=verdict_of(
            item.score, answered=answer.status is Status.OK or bool(answer.text), has_truth=item.asked.truth is not None
        ),
        seconds=timings.total_ns / 1e9,
        evidence=tuple(
            PictureRef(_key(recording, stamp), f"{(stamp - first_ns) / 1e9:.2f} s")
            for stamp in answer.evidence_stamps_ns
            if stamp in shown
        ),
        details=tuple((name, text) for name, text in details if text),
    )


def _said(answer: Answer) -> str:
    """The text; where it holds a number, the number in the unit of the question, too."""
    if answer.value is None:
        return answer.text
    value = f"{answer.value:g} {answer.unit}".rstrip()
    try:
        float(answer.text)
    except ValueError:
        return f"{answer.text} = {value}"
    return value


def _key(recording: int, stamp_ns: int) -> str:
    return f"{recording}-{stamp_ns}"


def _hashes(reports: Sequence[Report]) -> list[tuple[str, str]]:
    recordings = [("recording", report.hashes["recording"]) for report in reports if "recording" in report.hashes]
    first = reports[0].hashes
    return [*recordings, *((name, first[name]) for name in ("questions", "configuration", "model") if name in first)]


def _left_out(reports: Sequence[Report]) -> list[str]:
    return [
        f"{report.source_name}: {count} frames, {cause}"
        for report in reports
        for counts in (report.rejected, report.left_out)
        for cause, count in sorted(counts.items())
    ]
