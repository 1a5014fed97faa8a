"""Figures of a long run: the time of a frame by stage, the bytes held, and the coverage of all that was seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.benchmarks.stream_frames import SentFrame, looped, rooms_walk, sent_frames
from spatial_mllm_ros.encoders.base import GeometryEncoder
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.replay.coverage_figures import SeenFrame
from spatial_mllm_ros.replay.scene_recorder import SceneRecorder
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.greedy import covered_by, dense_ids, lazy_greedy
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.stage_clock import Stage
from spatial_mllm_ros.scene.voxels import coarsen

#: Names of the stages in the figures, in the order in which a frame goes through them.
STAGES = ("decode", "encode", "voxelise", "coverage", "select")
_CONFIG = SceneConfig(ring_frames=32, keyframes=32, rate_hz=0.0)
_ROOMS = 10
_BINS = 60  # points of a curve over time
_MOMENTS = 40  # at which coverage is measured
_STAGE_OF = dict(zip((Stage.ENCODE, Stage.VOXELISE, Stage.COVERAGE, Stage.SELECT), STAGES[1:], strict=True))


@dataclass(frozen=True, eq=False)
class Moment:
    """The frames selected and the frames held after a number of frames; stamps in ns."""

    frames: int
    selected: tuple[int, ...]
    held: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class StreamRun:
    """One run through a scene.

    Attributes:
        stage_ms: float64 [frames, stages], in the order of ``STAGES``, steady clock.
        held_bytes: int64 [frames, 3]: pixels in the ring, pixels of keyframes, index.
        keyframes: int64 [frames], keyframes held.
        moments: in time order.
        seen: every frame placed, in time order; frames of another round that saw the same share its keys.
        level: of the grid on which coverage is measured; the last one of the run.
        voxel_size_m: edge of that grid's voxels.
    """

    stage_ms: np.ndarray
    held_bytes: np.ndarray
    keyframes: np.ndarray
    moments: list[Moment]
    seen: list[SeenFrame]
    level: int
    voxel_size_m: float


def stream_rows(recording: Path | None, *, frames: int = 10_000) -> list[Row]:
    """Rows of a walk through generated rooms and, when there is one, of a recording played over and over.

    The rooms' walk is 100 times as long as the ring before it begins again.

    Raises:
        SourceError: the recording cannot be read, or has no depth and poses.
    """
    per_room = 100 * _CONFIG.ring_frames // _ROOMS
    walk = sent_frames(islice(rooms_walk(_ROOMS, per_room), frames))  # rooms that would not be reached are not made
    rows = measure("rooms", walk, frames, what=f"walk through rooms, {per_room} frames in each of {_ROOMS}")
    if recording is not None:
        with open_source(recording) as source:
            sent = sent_frames(source)
        rows += measure(source.name, sent, frames, what=f"recording of {len(sent)} frames, looped")
    return rows


def measure(
    name: str, sent: Sequence[SentFrame], frames: int, *, what: str, config: SceneConfig = _CONFIG
) -> list[Row]:
    """Rows of one stream of ``frames`` frames made of ``sent``; geometry is sensor depth with poses."""
    run = run_stream(sent, frames, SensorDepthEncoder(), config)
    detail = (
        f"{what}: {frames} frames of {sent[0].width_px}x{sent[0].height_px}, JPEG and 16-bit depth, sensor depth and "
        f"poses, ring {config.ring_frames}, keyframes {config.keyframes}, K {config.selected_frames}"
    )
    return [*_latency_rows(name, run, detail, len(sent)), *_memory_rows(name, run, detail), *_coverage_rows(name, run)]


def run_stream(sent: Sequence[SentFrame], frames: int, encoder: GeometryEncoder, config: SceneConfig) -> StreamRun:
    """Streams ``frames`` frames through a new scene, each one placed and the evidence set selected before the next."""
    scene = Scene(config, encoder)
    recorder = SceneRecorder(scene)
    stage_ms, held_bytes, keyframes = np.zeros((frames, len(STAGES))), np.zeros((frames, 3), np.int64), []
    moments: list[Moment] = []
    at = set(np.linspace(0, frames - 1, min(_MOMENTS, frames)).round().astype(int).tolist())
    keys_of: dict[int, np.ndarray] = {}  # by number within a round
    before = scene.spent_ns()
    for index, (stamp_ns, frame) in enumerate(looped(sent, frames)):
        started_ns = time.perf_counter_ns()
        frame.take_into(scene, stamp_ns)
        decoded_ns = time.perf_counter_ns() - started_ns
        placed = len(recorder.seen)
        recorder.process()
        selection = scene.snapshot.selection
        after = scene.spent_ns()
        stage_ms[index] = [decoded_ns / 1e6, *((after[stage] - before[stage]) / 1e6 for stage in _STAGE_OF)]
        before = after
        status = scene.status()
        ring_share = status.ring_frames / (status.ring_frames + status.keyframes)  # all frames are of one size
        ring_bytes = round(status.pixel_bytes * ring_share)
        held_bytes[index] = ring_bytes, status.pixel_bytes - ring_bytes, status.index_bytes
        keyframes.append(status.keyframes)
        for new in range(placed, len(recorder.seen)):
            own = recorder.seen[new]
            shared = keys_of.setdefault(index % len(sent), own.fine_keys)
            if np.array_equal(shared, own.fine_keys):  # the memory of a long run is that of one round
                recorder.seen[new] = replace(own, fine_keys=shared)
        if index in at:
            held = tuple(record.stamp_ns for record in scene.snapshot.placed)
            moments.append(Moment(index + 1, selection.stamps_ns, held))
    return StreamRun(
        stage_ms,
        held_bytes,
        np.array(keyframes),
        moments,
        recorder.seen,
        recorder.level,
        recorder.fine_voxel_size * (1 << recorder.level),
    )


def coverage_curves(run: StreamRun, k: int) -> dict[str, list[list[int]]]:
    """Voxels over frames seen, [frames, voxels] per moment of a run, all on one grid.

    ``ever``: seen by any frame so far; ``held``: seen by a frame still held; ``selected``: by the evidence set;
    ``unlimited``: by the k frames that the greedy method picks from all frames so far, none forgotten.
    """
    order: dict[int, int] = {}  # keys array -> number; rounds share their arrays
    number_of = {frame.stamp_ns: order.setdefault(id(frame.fine_keys), len(order)) for frame in run.seen}
    arrays = {id(frame.fine_keys): frame.fine_keys for frame in run.seen}
    voxels, count = dense_ids([coarsen(arrays[key], run.level) for key in order])
    curves: dict[str, list[list[int]]] = {"ever": [], "held": [], "selected": [], "unlimited": []}
    stamps = [frame.stamp_ns for frame in run.seen]
    for moment in run.moments:
        so_far = 1 + max(number_of[stamp] for stamp in stamps[: moment.frames])
        greedy, _ = lazy_greedy(voxels[:so_far], count, k)
        known = {
            "ever": range(so_far),
            "held": [number_of[s] for s in moment.held],
            "selected": [number_of[s] for s in moment.selected],
            "unlimited": greedy,
        }
        for name, frames in known.items():
            curves[name].append([moment.frames, covered_by(voxels, count, frames)])
    return curves


def _latency_rows(name: str, run: StreamRun, detail: str, round_frames: int) -> list[Row]:
    rows = []
    whole = run.stage_ms.sum(axis=1, keepdims=True)
    for stage, own in zip((*STAGES, "frame"), np.hstack([run.stage_ms, whole]).T, strict=True):
        for share in (50, 95, 99):
            value = float(np.percentile(own, share))
            drawn = share == (99 if stage == "frame" else 50)
            series = _binned(own, share) if drawn else ()
            rows.append(Row(f"stream.{name}.{stage}_p{share}_ms", value, "ms", "", detail, series))
    part = min(round_frames, len(whole) // 3)
    start = min(100, len(whole) // 10)
    ratio = float(np.median(whole[-part:]) / np.median(whole[start : start + part]))
    parts = f"median of the last {part} frames over that of {part} frames from frame {start}"
    rows.append(Row(f"stream.{name}.frame_ms_ratio", ratio, "", "<= 1.05", f"{parts}; {detail}"))
    return rows


def _memory_rows(name: str, run: StreamRun, detail: str) -> list[Row]:
    rows = []
    for what, own in zip(("ring", "keyframes", "index"), run.held_bytes.T, strict=True):
        said = f"at the end; {detail}"
        rows.append(Row(f"stream.{name}.{what}_bytes", own[-1], "bytes", "", said, _binned(own, 50)))
    rows.append(Row(f"stream.{name}.keyframes", run.keyframes[-1], "frames", "", f"at the end; {detail}"))
    total = run.held_bytes.sum(axis=1)
    start = min(100, len(total) // 10)
    part = max(1, len(total) // 20)
    ratio = float(np.median(total[-part:]) / np.median(total[start : start + part]))
    parts = f"all bytes, median of the last {part} frames over that of {part} frames from frame {start}"
    rows.append(Row(f"stream.{name}.bytes_ratio", ratio, "", "<= 1.05", f"{parts}; {detail}"))
    return rows


def _coverage_rows(name: str, run: StreamRun) -> list[Row]:
    k = len(run.moments[-1].selected)
    curves = coverage_curves(run, k)
    detail = f"voxels of {run.voxel_size_m:.3f} m, at the end"
    rows: list[Row] = []
    for curve, points in curves.items():
        rows.append(Row(f"stream.{name}.coverage_{curve}", points[-1][1], "voxels", "", detail, points))
    ratios = [own[1] / best[1] for own, best in zip(curves["selected"], curves["unlimited"], strict=True)]
    against = f"{k} selected of the frames held over {k} picked greedily from all frames so far, none forgotten"
    rows.append(Row(f"stream.{name}.coverage_over_unlimited", ratios[-1], "", ">= 0.98", f"{against}; at the end"))
    worst = f"{against}; the worst of {len(ratios)} moments"
    rows.append(Row(f"stream.{name}.coverage_over_unlimited_worst", min(ratios), "", "", worst))
    held = curves["held"][-1][1] / curves["ever"][-1][1]
    rows.append(Row(f"stream.{name}.held_over_ever", held, "", "", "voxels of frames still held over all ever seen"))
    return rows


def _binned(values: np.ndarray, percentile: float) -> list[list[float]]:
    """A percentile per part of the run: [frames seen at the part's end, value], at most ``_BINS`` of them."""
    edges = np.linspace(0, len(values), min(_BINS, len(values)) + 1).astype(int)
    return [[int(end), round(float(np.percentile(values[start:end], percentile)), 3)] for start, end in pairwise(edges)]
