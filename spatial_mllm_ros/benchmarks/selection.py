"""Figures of the frame selection: cost per frame over time, coverage on a real sequence, speed of the offline mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, GeometryEncoder, ScaleSource
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.replay.coverage_figures import SeenFrame, coverage_figures
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.offline.selection import select_offline
from spatial_mllm_ros.scene.scene import Scene

_PERIOD = 50  # frames in which the walk repeats, one period further down the corridor


def selection_rows(recording: Path | None) -> list[Row]:
    """Rows of the selection alone; the coverage figures need a recording with depth and poses.

    Raises:
        SourceError: the recording cannot be read.
    """
    rows = [*offline_rows(), *incremental_rows()]
    if recording is not None:
        with open_source(recording) as source:
            rows += coverage_rows(source, name=source.name)
    return rows


def incremental_rows(
    frame_counts: Sequence[int] = (100, 1_000, 10_000), *, measured_frames: int = 4 * _PERIOD
) -> list[Row]:
    """CPU time and bytes per frame of add + process after so many frames of a walk that sees ever new places.

    One scene is advanced to each count; then all are measured in turn, frame by frame, so that whatever else slows the
    machine slows all of them. The walk repeats itself, moved on, so every scene is given the same work. The encoder's
    time is not counted.
    """
    encoders = [_CorridorWalk() for _ in frame_counts]
    config = SceneConfig(ring_frames=32, keyframes=32, rate_hz=0.0)
    scenes = [Scene(config, encoder) for encoder in encoders]
    next_frame = [0] * len(scenes)

    def step(which: int) -> int:
        frame = _CorridorWalk.frame(next_frame[which])
        next_frame[which] += 1
        encoders[which].spent_ns = 0
        start_ns = time.thread_time_ns()
        scenes[which].add(frame)
        scenes[which].process()
        return time.thread_time_ns() - start_ns - encoders[which].spent_ns

    for which, count in enumerate(frame_counts):
        for _ in range(count):
            step(which)
    spent_ns, held_bytes = [], []
    for _ in range(measured_frames):
        spent_ns.append([step(which) for which in range(len(scenes))])
        held_bytes.append([scene.status().index_bytes for scene in scenes])
    cost_ms = np.median(spent_ns, axis=0) / 1e6
    index_bytes = np.median(held_bytes, axis=0)
    ways = f"ring 32, keyframes 32, K 16, {measured_frames} frames measured in turn, CPU time without the encoder"
    rows = []
    for count, cost, size in zip(frame_counts, cost_ms, index_bytes, strict=True):
        rows.append(Row(f"selection.frame_ms_after_{count}", cost, "ms", "", ways))
        rows.append(Row(f"selection.index_bytes_after_{count}", size, "bytes", "", ways))
    last, first = frame_counts[-1], frame_counts[0]
    rows.append(Row("selection.frame_ms_ratio", cost_ms[-1] / cost_ms[0], "", "<= 1.05", f"{last} over {first} frames"))
    ratio = index_bytes[-1] / index_bytes[0]
    rows.append(Row("selection.index_bytes_ratio", ratio, "", "<= 1.05", f"{last} over {first} frames"))
    return rows


def coverage_rows(
    frames: Iterable[Frame], *, ring_frames: int = 32, keyframes: int = 32, k: int = 16, name: str = "sequence"
) -> list[Row]:
    """Coverage of the bounded incremental selection over the offline greedy and the uniform one, all frames candidates.

    Args:
        frames: an RGB-D recording with poses, in stamp order.
        name: of the recording, for the names of the rows.
    """
    scene = Scene(
        SceneConfig(ring_frames=ring_frames, keyframes=keyframes, selected_frames=k, rate_hz=0.0), SensorDepthEncoder()
    )
    seen: list[SeenFrame] = []
    for frame in frames:
        scene.add(frame)
        if scene.process():
            record = scene.snapshot.placed[-1]
            seen.append(SeenFrame(record.stamp_ns, record.fine_keys, record.scene_from_cam))
    known = scene.snapshot
    figures = coverage_figures(
        seen, known.selection.stamps_ns, level=known.level, fine_voxel_size=known.fine_voxel_size, unit="m"
    )
    ways = (
        f"{figures.candidates} frames, ring {ring_frames}, keyframes {keyframes}, K {k}, voxels of "
        f"{figures.voxel_size:.3f} m: selected {figures.selected}, offline greedy {figures.offline_greedy}, uniform "
        f"{figures.uniform}, all {figures.total}"
    )
    over_greedy, over_uniform = figures.selected / figures.offline_greedy, figures.selected / figures.uniform
    return [
        Row(f"selection.{name}.coverage_over_offline_greedy", over_greedy, "", ">= 0.98", ways),
        Row(f"selection.{name}.coverage_over_uniform", over_uniform, "", "> 1", ways),
    ]


def offline_rows(frames: int = 128, height: int = 392, width: int = 518, k: int = 16, repeats: int = 3) -> list[Row]:
    """Seconds of voxelising and selecting a clip, and how many times the plain Python-set method takes."""
    points, confidence = _noisy_clip(frames, height, width)
    ours, seconds = _best_of(repeats, lambda: list(select_offline(points, confidence, k).greedy_order))
    plain, plain_seconds = _best_of(repeats, lambda: plain_selection(points, confidence, k))
    ways = f"{frames} frames of {height}x{width} points, K {k}; "
    same = float(ours == plain)
    return [
        Row("selection.offline_s", seconds, "s", "", ways + f"best of {repeats}"),
        Row(
            "selection.offline_plain_sets_s",
            plain_seconds,
            "s",
            "",
            ways + "one tuple per point from lists, Python sets",
        ),
        Row("selection.offline_speedup", plain_seconds / seconds, "", ">= 50", ways + "plain over ours"),
        Row("selection.offline_same_frames", same, "", "1", ways + "1: the same frames in the same order"),
    ]


def _best_of(repeats: int, compute: Callable[[], list[int]]) -> tuple[list[int], float]:
    """What ``compute`` gives, and the seconds of its fastest run."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = compute()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def plain_selection(points: np.ndarray, confidence: np.ndarray, k: int) -> list[int]:
    """The official algorithm as one would write it down: a tuple per point, a Python set per frame, plain greedy.

    Args:
        points: float32 [T, H, W, 3].
        confidence: float32 [T, H, W].

    Returns:
        the frames in the order of picking.
    """
    mask = (confidence >= np.median(confidence)) & (confidence > 0.1)
    used = points[mask]
    low = used.min(axis=0)
    voxel_size = (used.max(axis=0) - low).min() / np.float32(20)
    seen = []
    for frame_points, frame_mask in zip(points, mask, strict=True):
        cells = np.floor((frame_points[frame_mask] - low) / voxel_size).astype(np.int64)
        seen.append(set(map(tuple, cells.tolist())))  # four times as fast as a tuple of each numpy row
    covered: set[tuple[int, ...]] = set()
    order: list[int] = []
    while len(order) < k:
        gains = [0 if t in order else len(voxels - covered) for t, voxels in enumerate(seen)]
        best = max(range(len(gains)), key=gains.__getitem__)
        if gains[best] == 0:
            break
        order.append(best)
        covered |= seen[best]
    return order


class _CorridorWalk(GeometryEncoder):
    """Points on the walls of long corridors, one above the other, that a camera walks along, looking left and right.

    Hardly anything is seen twice, which is the most voxels that the frames held can have.
    """

    name = "corridor-walk"
    window_size = 1
    anchor_count = 0
    _HEIGHT, _WIDTH = 60, 80
    _ADVANCE_M = 1.92  # per frame; a period is a whole number of voxels at every level in use
    _PERIODS_PER_FLOOR = 20
    _FLOOR_HEIGHT_M = 3.2

    def __init__(self) -> None:
        self.spent_ns = 0
        self._intrinsics = Intrinsics(60.0, 60.0, 39.5, 29.5, self._WIDTH, self._HEIGHT)
        u, v = np.meshgrid(np.arange(self._WIDTH), np.arange(self._HEIGHT))
        rays = np.stack([(u - 39.5) / 60.0, (v - 29.5) / 60.0, np.ones(u.shape)], axis=-1)
        self._period = [self._points(rays, i) for i in range(_PERIOD)]

    @staticmethod
    def frame(index: int) -> Frame:
        """Frame number ``index`` of the walk."""
        return Frame(1 + index * 100_000_000, np.zeros((48, 64, 3), np.uint8))

    def encode(self, frames: Sequence[Frame], anchors: Sequence[Anchor]) -> list[FrameGeometry]:
        """See ``GeometryEncoder``; its own time is added to ``spent_ns``."""
        start_ns = time.thread_time_ns()
        geometries = []
        for frame in frames:
            laps, phase = divmod((frame.stamp_ns - 1) // 100_000_000, _PERIOD)
            floor, along = divmod(laps, self._PERIODS_PER_FLOOR)
            offset = np.array([along * _PERIOD * self._ADVANCE_M, 0.0, floor * self._FLOOR_HEIGHT_M])
            pose = np.eye(4)
            pose[:3, 3] = self._centre(phase) + offset
            points = self._period[phase] + offset.astype(np.float32)
            confidence = np.ones(points.shape[:2], np.float32)
            geometries.append(FrameGeometry(points, confidence, pose, self._intrinsics, ScaleSource.DEPTH))
        self.spent_ns += time.thread_time_ns() - start_ns
        return geometries

    def _points(self, rays: np.ndarray, phase: int) -> np.ndarray:
        turn = 1.2 * np.sin(2 * np.pi * phase / _PERIOD)
        # x along the corridor, y to its right, z up
        forward = np.array([np.cos(turn), np.sin(turn), 0.0])
        right = np.array([-np.sin(turn), np.cos(turn), 0.0])
        directions = rays[..., 2:] * forward + rays[..., :1] * right + rays[..., 1:2] * np.array([0.0, 0.0, -1.0])
        centre = self._centre(phase)
        low, high = np.array([-np.inf, -1.6, 0.0]), np.array([np.inf, 2.1, 2.6])
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.maximum((low - centre) / directions, (high - centre) / directions)
        depth = np.minimum(np.nanmin(reach, axis=-1), 5.0)
        return (centre + directions * depth[..., None]).astype(np.float32)

    def _centre(self, phase: int) -> np.ndarray:
        return np.array([phase * self._ADVANCE_M, 0.3, 1.5])


def _noisy_clip(frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A turn through the fake room at 4 Hz, with a centimetre of noise on the points and noise on the confidence."""
    rng = np.random.default_rng(0)
    encoder = FakeGeometryEncoder(height, width, window_size=1)
    points = np.empty((frames, height, width, 3), np.float32)
    confidence = np.empty((frames, height, width), np.float32)
    for t, geometry in enumerate(_geometries(encoder, frames)):
        points[t] = geometry.points_scene + rng.normal(0, 0.01, geometry.points_scene.shape).astype(np.float32)
        confidence[t] = geometry.confidence + rng.random((height, width), dtype=np.float32)
    return points, confidence


def _geometries(encoder: FakeGeometryEncoder, frames: int) -> Iterator[FrameGeometry]:
    for t in range(frames):
        yield encoder.encode([Frame(1 + t * 250_000_000, np.zeros((1, 1, 3), np.uint8))], [])[0]
