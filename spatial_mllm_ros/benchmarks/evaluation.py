"""Figures of the evaluation itself: replay against reading alone, scoring, and the page."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.recordings.bag_writer import write_bag
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.report.browser import DESKTOP, PHONE, open_browser
from spatial_mllm_ros.report.thumbnails import strip_jpeg
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.scoring.benchmark_page import STRIPS_FOLDER, strip_key, write_benchmark_page
from spatial_mllm_ros.scoring.datasets.question import BenchmarkData, BenchmarkQuestion
from spatial_mllm_ros.scoring.runner.results_file import StoredAnswer
from spatial_mllm_ros.scoring.score_table import score_answers
from spatial_mllm_ros.scoring.scorers.catalogue import scorers_of
from spatial_mllm_ros.scoring.scorers.vsi_bench import CHOICE_TYPES, NUMERIC_TYPES

_log = logging.getLogger(__name__)

VSI_BENCH_QUESTIONS, VSI_BENCH_VIDEOS = 5130, 288


def evaluation_rows(recording: Path | None = None) -> list[Row]:
    """Rows of all figures. A generated room is replayed as an MCAP bag, and ``recording`` where there is one."""
    with tempfile.TemporaryDirectory(prefix="spatial_mllm_benchmark_") as folder:
        bags = {"room": Path(folder) / "room"}
        write_bag(bags["room"], make_clips([7], ClipConfig(150, 640, 480, rate_hz=15.0))[0].frames())
        if recording is not None:
            with open_source(recording) as source:
                bags[source.name] = Path(folder) / source.name
                write_bag(bags[source.name], source)
        rows = [row for name, bag in bags.items() for row in _replay_rows(name, bag, Path(folder) / "out")]
        return [*rows, *_scoring_rows(), *_page_rows(Path(folder))]


def made_up_run(questions: int, *, videos: int, seed: int = 0) -> tuple[BenchmarkData, dict[str, StoredAnswer]]:
    """Made-up VSI-Bench questions with random answers; no model is run."""
    rng = np.random.default_rng(seed)
    made, answers = [], {}
    for number in range(questions):
        kind = (*NUMERIC_TYPES, *CHOICE_TYPES)[number % 10]
        numeric = kind in NUMERIC_TYPES
        truth = f"{rng.uniform(1, 9):.1f}" if numeric else "ABCD"[rng.integers(4)]
        said = f"{float(truth) * rng.uniform(0.5, 1.5):.1f}" if numeric else "ABCD"[rng.integers(4)]
        scene = f"scannet/scene{number % videos:04d}"
        made.append(
            BenchmarkQuestion(
                id=str(number),
                benchmark="vsi-bench",
                question_type=kind,
                text=f"A made-up question of the type {kind.replace('_', ' ')}, number {number}?",
                options=() if numeric else ("chair", "table", "sofa", "lamp"),
                truths=(truth,),
                scene=scene,
                video=Path(scene),
            )
        )
        answers[str(number)] = StoredAnswer(str(number), said, made[-1].text, tuple(range(16)), rng.gamma(4.0, 0.1))
    return BenchmarkData("vsi-bench", "full", tuple(made), ()), answers


def _replay_rows(name: str, bag: Path, out_dir: Path) -> list[Row]:
    from spatial_mllm_ros.answering.setup import SessionConfig, open_session
    from spatial_mllm_ros.replay.replay import replay

    with open_source(bag) as source:
        started = time.perf_counter()
        frames = sum(1 for _ in source)
        reading_s = time.perf_counter() - started
        session = open_session(SessionConfig(device="cpu"))
        started = time.perf_counter()
        report = replay(source, session, (), out_dir)
        replay_s = time.perf_counter() - started
    pass_s = (report.read_ns + report.process_ns) / 1e9
    placed = report.coverage.candidates if report.coverage else 0
    how = f"{frames} frames 640x480 with depth and poses from an MCAP bag, {placed} of them placed, no questions"
    return [
        Row(f"evaluation.{name}.read_frames_per_s", frames / reading_s, "frames/s", "", "reading and decoding alone"),
        Row(f"evaluation.{name}.replay_frames_per_s", frames / pass_s, "frames/s", "", how),
        Row(f"evaluation.{name}.replay_over_read", pass_s / reading_s, "", "", "time of the replay over reading"),
        Row(f"evaluation.{name}.report_s", replay_s - pass_s, "s", "", "once per recording: report.json and picture"),
    ]


def _scoring_rows() -> list[Row]:
    data, answers = made_up_run(VSI_BENCH_QUESTIONS, videos=VSI_BENCH_VIDEOS)
    predictions = {number: answer.prediction for number, answer in answers.items()}
    rows = []
    for scorer in scorers_of("vsi-bench"):
        started = time.perf_counter()
        score_answers(scorer, data.questions, predictions, split="full", model="none", frames="none")
        spent_s = time.perf_counter() - started
        how = f"{VSI_BENCH_QUESTIONS} made-up questions, with all intervals"
        rows.append(Row(f"evaluation.score_s.{scorer.name}", spent_s, "s", "seconds", how))
    return rows


def _page_rows(folder: Path, questions: int = 1000, videos: int = 56) -> list[Row]:
    data, answers = made_up_run(questions, videos=videos)
    frames: Sequence[np.ndarray] = [
        frame.rgb for frame in make_clips([7], ClipConfig(16, 320, 240, rate_hz=15.0))[0].frames()
    ]
    (folder / STRIPS_FOLDER).mkdir()
    for clip in {question.video for question in data.questions}:
        (folder / STRIPS_FOLDER / f"{strip_key(clip)}.jpg").write_bytes(strip_jpeg(frames))
    scorers = scorers_of("vsi-bench")[:1]
    predictions = {number: answer.prediction for number, answer in answers.items()}
    tables = [
        score_answers(s, data.questions, predictions, split="full", model="made-up", frames="16 frames")
        for s in scorers
    ]
    model = {"name": "made-up", "architecture": "none", "licence": "none", "sha256": "0" * 64, "random_weights": True}
    path = folder / "report.html"
    started = time.perf_counter()
    write_benchmark_page(path, data, answers, tables, scorers[0], model=model, configuration={})
    spent_s = time.perf_counter() - started
    how = f"{questions} questions about {videos} videos with a strip of 16 frames each"
    return [
        Row("evaluation.page_s", spent_s, "s", "", how),
        Row("evaluation.page_mib", path.stat().st_size / 2**20, "MiB", "", how),
        *_load_rows(path, how),
    ]


def _load_rows(path: Path, how: str) -> list[Row]:
    """The median of five loads on each screen; no rows where there is no browser."""
    try:
        with open_browser() as browser:
            return [
                Row(
                    f"evaluation.page_load_s.{name}",
                    float(np.median([browser.visit(path, screen).load_s for _ in range(5)])),
                    "s",
                    "",
                    f"{how}; headless Chromium, from disk",
                )
                for name, screen in (("desktop", DESKTOP), ("phone", PHONE))
            ]
    except ConfigurationError as error:
        _log.warning("The load time of the page is not measured: %s", error)
        return []
