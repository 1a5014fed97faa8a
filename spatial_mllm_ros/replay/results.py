"""The report of a replay, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spatial_mllm_ros.answering.answer import Answer
from spatial_mllm_ros.provenance import versions
from spatial_mllm_ros.recordings.question_files import TimedQuestion
from spatial_mllm_ros.replay.coverage_figures import CoverageFigures, CoverageSample, SeenFrame
from spatial_mllm_ros.scene.records import Selection


@dataclass(frozen=True)
class AskedQuestion:
    """A question of the file with its answer.

    Attributes:
        stamp_ns: of the newest frame when the question was asked.
        score: in [0, 1], see ``replay.scores.RULE``; None where no truth is known.
    """

    asked: TimedQuestion
    stamp_ns: int
    answer: Answer
    score: float | None = None


@dataclass(frozen=True, eq=False)
class ReplayTrace:
    """Data of a replay that the page shows and report.json does not hold.

    Attributes:
        seen: every frame placed in the scene.
        first_stamp_ns: from which times count.
        thumbnails: JPEGs of the evidence, by stamp.
    """

    seen: Sequence[SeenFrame]
    fine_voxel_size: float
    first_stamp_ns: int
    thumbnails: Mapping[int, bytes]


@dataclass(frozen=True)
class Report:
    """The outcome of a replay; ``to_json`` has the layout of report.json.

    Two replays of the same input with the same versions give the same report.json, except for the values of the keys
    ``timings``.

    Attributes:
        frames: number of frames read from the recording.
        rejected: numbers of frames that the recording left out, by cause.
        left_out: numbers of frames that the scene left out, by cause (``thinned`` to the buffer's rate, ...).
        coverage: None when no frame could be placed in the scene.
        configuration: of the session, plain values.
        coverage_over_time: how coverage grew, on the grid of ``coverage``.
        hashes: SHA-256 of ``recording``, ``questions``, ``configuration`` and ``model``, as far as they are known.
        scores: score tables as JSON, see ``ScoreTable.to_json``.
        read_ns, process_ns, ask_ns: time spent reading frames, placing frames and asking, on the steady clock.
    """

    source_kind: str
    source_name: str
    frames: int
    rejected: Mapping[str, int]
    left_out: Mapping[str, int]
    selection: Selection
    coverage: CoverageFigures | None
    questions: tuple[AskedQuestion, ...]
    model: Mapping[str, Any]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    coverage_over_time: tuple[CoverageSample, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    scores: tuple[Mapping[str, Any], ...] = ()
    trace: ReplayTrace | None = field(default=None, compare=False, repr=False)
    read_ns: int = 0
    process_ns: int = 0
    ask_ns: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values; times in integer nanoseconds, lengths in metres unless ``coverage.unit`` is "relative"."""
        return {
            "source": {"kind": self.source_kind, "name": self.source_name},
            "frames": self.frames,
            "rejected": dict(self.rejected),
            "left_out": dict(self.left_out),
            "selected": list(self.selection.stamps_ns),
            "gains": list(self.selection.gains),
            "coverage": _coverage_json(self.coverage),
            "coverage_over_time": [asdict(sample) for sample in self.coverage_over_time],
            "scores": [dict(table) for table in self.scores],
            "hashes": dict(self.hashes),
            "questions": [_question_json(question) for question in self.questions],
            "model": dict(self.model),
            "versions": versions(),
            "configuration": dict(self.configuration),
            "timings": {"read_ns": self.read_ns, "process_ns": self.process_ns, "ask_ns": self.ask_ns},
        }


def _coverage_json(figures: CoverageFigures | None) -> dict[str, Any]:
    if figures is None:
        return {
            "candidates": 0,
            "selected": 0,
            "uniform": 0,
            "offline_greedy": 0,
            "total": 0,
            "voxel_size": 0.0,
            "unit": "",
        }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(figures).items()}


def _question_json(item: AskedQuestion) -> dict[str, Any]:
    answer = item.answer
    values: dict[str, Any] = {
        "question": item.asked.question.text,
        "options": list(item.asked.question.options),
        "type": item.asked.question_type,
        "asked_at": item.stamp_ns,
        "status": answer.status.name,
        "message": answer.message,
        "text": answer.text,
        "value": answer.value,
        "unit": answer.unit,
        "choice": answer.choice,
        "confidence": answer.confidence,
        "method": answer.method,
        "scale_source": answer.scale_source.value if answer.scale_source else "",
        "evidence": list(answer.evidence_stamps_ns),
        "epoch": answer.epoch,
        "newest_frame_age_ns": answer.newest_frame_age_ns,
        "prompt": answer.prompt,
        "timings": asdict(answer.timings),
    }
    if item.asked.truth is not None:
        values |= {"truth": item.asked.truth, "tolerance": item.asked.tolerance, "score": item.score}
    return values
