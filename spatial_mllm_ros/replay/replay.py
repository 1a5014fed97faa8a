"""Replays a recording through a scene and a model, in order and without a ROS graph, and reports the outcome."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError, SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.recordings.bag_topics import BagTopics
from spatial_mllm_ros.recordings.question_files import TimedQuestion, load_questions
from spatial_mllm_ros.recordings.recording import counts_in_words
from spatial_mllm_ros.recordings.sources import FrameSource, open_source
from spatial_mllm_ros.replay.coverage_figures import (
    CoverageFigures,
    CoverageSample,
    coverage_figures,
    coverage_over_time,
)
from spatial_mllm_ros.replay.page import write_replay_page
from spatial_mllm_ros.replay.picture import ContactFrame, write_picture
from spatial_mllm_ros.replay.results import AskedQuestion, ReplayTrace, Report
from spatial_mllm_ros.replay.scene_recorder import SceneRecorder
from spatial_mllm_ros.replay.scores import combined_json, replay_table, score_of, table_of
from spatial_mllm_ros.report.thumbnails import thumbnail_jpeg
from spatial_mllm_ros.scene.records import Selection
from spatial_mllm_ros.storage import json_sha256, sha256_of, write_json

if TYPE_CHECKING:
    from spatial_mllm_ros.answering.session import SpatialSession
    from spatial_mllm_ros.answering.setup import SessionConfig
    from spatial_mllm_ros.scene.scene import Scene

_log = logging.getLogger(__name__)

REPORT_FILE = "report.json"
PICTURE_FILE = "coverage.png"
PAGE_FILE = "report.html"
_COVERAGE_SAMPLES = 64  # at most, over the whole recording
_FRAMES_AT_ONCE = 24  # divisible by most window sizes, so that few windows of an encoder are not full


def replay(
    source: FrameSource,
    session: SpatialSession,
    questions: Sequence[TimedQuestion],
    out_dir: Path,
    *,
    configuration: Mapping[str, Any] | None = None,
    hashes: Mapping[str, str] | None = None,
) -> Report:
    """Runs ``source`` through ``session`` and writes ``report.json`` and ``coverage.png`` to ``out_dir``.

    Everything happens in this thread: frames are added as they are read, and are placed some windows at a time. A
    question with ``at_s`` is asked at the first frame that is at least so late, the other questions after the last
    frame. Before a question is asked, all frames that wait are placed.

    Args:
        configuration: of the session, for the report.
        hashes: see ``Report``; those of the model and of the configuration are added.

    Raises:
        SourceError: the recording cannot be read, or ``out_dir`` cannot be written.
    """
    run = _Run(session, questions)
    total = source.frame_count
    for frame in tqdm(source, total=total, unit="frame", desc=source.name, disable=not sys.stderr.isatty()):
        run.add(frame)
    run.finish()
    report = run.report(source, configuration or {}, hashes or {})
    _write(report, run, out_dir, source.name)
    return report


def tell(reports: Sequence[Report], *, frames: int, out_dir: Path) -> None:
    """Writes answers and coverage to the log, and the score table to standard output."""
    for report in reports:
        _tell(report)
    table = replay_table(
        [(report.source_name, report.questions) for report in reports],
        model=str(reports[0].model["name"]),
        frames=frames,
    )
    for line in table.lines() if table else ():
        sys.stdout.write(f"{line}\n")
    if reports[0].model.get("random_weights"):
        _log.warning("The model has random weights: its text means nothing. The selection of frames is real.")
    _log.info("Written: %s, %s", out_dir / REPORT_FILE, out_dir / PAGE_FILE)


def replay_all(
    sources: Sequence[Path],
    questions: Sequence[Path],
    out_dir: Path,
    config: SessionConfig,
    *,
    topics: Sequence[str] = (),
    source_rate_hz: float | None = None,
) -> list[Report]:
    """Replays recordings one after the other, each into a scene of its own, and writes one page about all of them.

    One recording has its ``report.json`` and ``coverage.png`` in ``out_dir``, several have them in a folder each, and
    ``out_dir/report.json`` then holds the scores over all.

    Args:
        questions: one file for all recordings, one for each, or none.
        topics: the topics of a bag that are read, see ``BagTopics.from_options``.
        source_rate_hz: images per second of a folder of images, see ``open_source``.

    Raises:
        SpatialMllmError: a recording, a question file, the checkpoint or an option cannot be used.
    """
    from spatial_mllm_ros.answering.setup import open_session

    if len(questions) not in (0, 1, len(sources)):
        raise ConfigurationError(
            f"{len(questions)} files of questions were given for {len(sources)} recordings; give one for all of them, "
            "or one for each."
        )
    files: list[Path | None] = [*questions] or [None]
    if len(files) == 1:
        files *= len(sources)
    asked = [load_questions(file) if file else () for file in files]
    bag_topics = BagTopics.from_options(topics) if topics else None
    configuration = _configuration_json(config)
    reports = []
    for number, (path, timed) in enumerate(zip(sources, asked, strict=True)):
        hashes = {"recording": sha256_of(path)} if path.exists() else {}
        if (file := files[number]) is not None:
            hashes["questions"] = sha256_of(file)
        with open_source(path, rate_hz=source_rate_hz, topics=bag_topics) as recording:
            own = folder_of(out_dir, number, recording.name, len(sources))
            session = open_session(config)
            reports.append(replay(recording, session, timed, own, configuration=configuration, hashes=hashes))
    try:
        write_replay_page(out_dir / PAGE_FILE, reports, frames=config.scene.selected_frames)
        if len(sources) > 1:
            write_json(out_dir / REPORT_FILE, combined_json(reports, frames=config.scene.selected_frames))
    except OSError as error:
        raise SourceError(f"The report cannot be written to {out_dir}: {error.strerror}.") from error
    return reports


def folder_of(out_dir: Path, number: int, name: str, of: int) -> Path:
    """The folder of the report on recording ``number`` (from 0) of ``of``."""
    return out_dir if of == 1 else out_dir / f"{number + 1:02d}_{name}"


def _tell(report: Report) -> None:
    """Writes the outcome of one recording to the log."""
    for question in report.questions:
        answer = question.answer
        said = " ".join(part for part in (answer.text, answer.message) if part)
        _log.info("%s -> %s: %s", question.asked.question.text, answer.status.name, said)
    if report.coverage is not None:
        c = report.coverage
        _log.info(
            "%s: %d of %d frames selected; of %d voxels they see %d, as many uniform ones %d, offline greedy ones %d.",
            report.source_name,
            *(len(report.selection.stamps_ns), c.candidates, c.total, c.selected, c.uniform, c.offline_greedy),
        )
    if report.rejected:
        _log.warning("Frames left out of %s: %s.", report.source_name, counts_in_words(Counter(report.rejected)))


class _Run:
    """One pass over a recording: the session, what its scene has seen, and the questions that are still to ask."""

    def __init__(self, session: SpatialSession, questions: Sequence[TimedQuestion]) -> None:
        self._session = session
        self._open = list(enumerate(questions))
        self._answers: dict[int, AskedQuestion] = {}
        self._recorder = SceneRecorder(session.scene)
        self._first_ns = self._newest_ns = self._frames = 0
        self._process_ns = self._ask_ns = 0
        self._started_ns = time.monotonic_ns()
        self._selection = Selection(epoch=0)
        self._contact: list[ContactFrame] = []
        self._selections = _SelectionLog(session.scene)
        self._thumbnails: dict[int, bytes] = {}

    def add(self, frame: Frame) -> None:
        """Adds one frame, and asks the questions that are due at this frame."""
        self._first_ns = self._first_ns or frame.stamp_ns
        self._newest_ns = frame.stamp_ns
        self._frames += 1
        try:
            self._session.scene.add(frame)
        except FrameRejectedError as error:
            _log.warning("Frame left out by the scene (%s): %s", error.cause, error)
        if self._enough_waits(frame):
            self._process()
        elapsed_ns = frame.stamp_ns - self._first_ns
        self._ask([item for item in self._open if item[1].at_s is not None and item[1].at_s * 1e9 <= elapsed_ns])

    def finish(self) -> None:
        """After the last frame: places the frames that wait, and asks the remaining questions."""
        self._process()
        self._ask(list(self._open))
        scene = self._session.scene
        evidence = scene.snapshot.evidence
        self._selection = evidence.selection
        if self._recorder.seen:
            self._selections.note(self._recorder.seen[-1].stamp_ns, last=True)
        self._contact = [
            ContactFrame(f.stamp_ns, f.rgb, gain) for f, gain in zip(evidence.frames, evidence.gains, strict=True)
        ]

    def _ask(self, due: list[tuple[int, TimedQuestion]]) -> None:
        if not due:
            return
        self._process()
        started_ns = time.monotonic_ns()
        for number, timed in due:
            answer = self._session.ask(timed.question)
            self._answers[number] = AskedQuestion(timed, self._newest_ns, answer, score_of(timed, answer))
            self._keep_thumbnails(answer.evidence_stamps_ns)
        self._open = [item for item in self._open if item[0] not in self._answers]
        self._ask_ns += time.monotonic_ns() - started_ns

    def _keep_thumbnails(self, stamps_ns: Sequence[int]) -> None:
        missing = set(stamps_ns) - self._thumbnails.keys()
        if missing:
            frames = self._session.scene.snapshot.evidence.frames
            self._thumbnails |= {f.stamp_ns: thumbnail_jpeg(f.rgb) for f in frames if f.stamp_ns in missing}

    def _process(self) -> None:
        started_ns = time.monotonic_ns()
        self._recorder.process(self._selections.note)
        self._process_ns += time.monotonic_ns() - started_ns

    def _enough_waits(self, frame: Frame) -> bool:
        """Whether the frames that wait fill several windows of any usual size, or half of the ring buffer."""
        scene = self._session.scene
        waiting = scene.pending
        half_full = 2 * waiting >= scene.config.ring_frames or 2 * waiting * frame.nbytes >= scene.config.ring_bytes
        return waiting >= _FRAMES_AT_ONCE or half_full

    def report(self, source: FrameSource, configuration: Mapping[str, Any], hashes: Mapping[str, str]) -> Report:
        """The figures, after ``finish``."""
        identity = self._session.model.identity
        coverage = self._coverage()
        report = Report(
            source_kind=source.kind,
            source_name=source.name,
            frames=self._frames,
            rejected=dict(source.rejected),
            left_out=dict(self._session.scene.status().counts),
            selection=self._selection,
            coverage=coverage,
            questions=tuple(self._answers[number] for number in sorted(self._answers)),
            model=asdict(identity),
            configuration=configuration,
            coverage_over_time=self._coverage_over_time() if coverage else (),
            hashes={**hashes, "configuration": json_sha256(configuration), "model": identity.sha256},
            trace=ReplayTrace(
                self._recorder.seen, self._recorder.fine_voxel_size, self._first_ns, dict(self._thumbnails)
            ),
            read_ns=time.monotonic_ns() - self._started_ns - self._process_ns - self._ask_ns,
            process_ns=self._process_ns,
            ask_ns=self._ask_ns,
        )
        table = table_of(report, frames=self._session.scene.config.selected_frames)
        return replace(report, scores=(table.to_json(),)) if table else report

    def _coverage_over_time(self) -> tuple[CoverageSample, ...]:
        return coverage_over_time(self._recorder.seen, self._selections.notes, level=self._recorder.level)

    def _coverage(self) -> CoverageFigures | None:
        selection, seen = self._selection, self._recorder.seen
        if selection.scale_source is None or not seen:
            return None
        return coverage_figures(
            seen,
            selection.stamps_ns,
            level=self._recorder.level,
            fine_voxel_size=self._recorder.fine_voxel_size,
            unit="m" if selection.scale_source.is_metric else "relative",
        )

    def draw(self, path: Path, report: Report) -> None:
        """The picture of the replay; see ``write_picture``."""
        if report.coverage is None:
            _log.warning("No picture is drawn: no frame could be placed in the scene.")
            return
        shown, of = len(self._contact), report.coverage.candidates
        write_picture(
            path,
            self._contact,
            self._recorder.seen,
            report.coverage,
            fine_voxel_size=self._recorder.fine_voxel_size,
            title=f"{report.source_name}: what {shown} of {of} frames show of the scene",
            first_stamp_ns=self._first_ns,
        )


class _SelectionLog:
    """Selections over time, at a limited number of moments that are spread evenly over the recording so far.

    Attributes:
        notes: stamps of the newest placed frame, each with the stamps that were selected then, in time order.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._epoch = 0
        self._interval_ns = 250_000_000
        self.notes: list[tuple[int, tuple[int, ...]]] = []

    def note(self, placed_ns: int, *, last: bool = False) -> None:
        """Notes the present selection, unless the last note is too recent.

        Args:
            placed_ns: stamp of the newest placed frame.
            last: this is the end of the recording; the selection is noted however recent the last note is.
        """
        if self._scene.epoch != self._epoch:
            self._epoch, self.notes = self._scene.epoch, []
        if self.notes and not last and placed_ns - self.notes[-1][0] < self._interval_ns:
            return
        if self.notes and placed_ns <= self.notes[-1][0]:
            return
        self.notes.append((placed_ns, self._scene.snapshot.selection.stamps_ns))
        if len(self.notes) > _COVERAGE_SAMPLES:
            self.notes = self.notes[::2]
            self._interval_ns *= 2


def _write(report: Report, run: _Run, out_dir: Path, name: str) -> None:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        run.draw(out_dir / PICTURE_FILE, report)
        write_json(out_dir / REPORT_FILE, report.to_json())
    except OSError as error:
        raise SourceError(f"The report on {name!r} cannot be written to {out_dir}: {error.strerror}.") from error


def _configuration_json(config: SessionConfig) -> dict[str, Any]:
    """The configuration as plain values, without the path of the checkpoint's folder, which names this machine."""
    values = asdict(config)
    values["checkpoint"] = Path(config.checkpoint).name
    return values
