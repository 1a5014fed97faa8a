"""What windows cost: drift and coverage over window and anchor sizes by simulation, latency with the real network.

No trained weights are used. Drift and coverage come from ``SimulatedVggt``: true geometry in windows, each in a frame
and a unit of its own and with noise of a stated size. They show how errors add up from window to window. Latency comes
from VGGT with random weights, which takes as long as with trained ones.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from spatial_mllm_ros.benchmarks.encoder import SIZES
from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.benchmarks.simulated_vggt import SimulatedNoise, SimulatedVggt, TrueView
from spatial_mllm_ros.encoders.base import Anchor
from spatial_mllm_ros.encoders.vggt import VggtGeometryEncoder
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.poses import inverse_pose, rotation_angle_rad
from spatial_mllm_ros.geometry.sim3 import fit_sim3
from spatial_mllm_ros.geometry.unprojection import sampled_intrinsics, to_scene, unproject_depth
from spatial_mllm_ros.models.small.random_checkpoint import random_vggt
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.replay.scene_recorder import SceneRecorder
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.world.world import split_seed
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.greedy import covered_by, dense_ids, lazy_greedy
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.voxels import voxel_keys
from spatial_mllm_ros.storage import write_text

WINDOWS = (2, 4, 6, 12)
ANCHORS = (1, 2, 4)
_PICTURE_PX = (224, 168)
_APART = 100  # frames over which drift is told
_TRUE_VOXEL_M = 0.16
_SELECTED = 16
_COLUMNS = 40  # of the simulated VGGT's point maps
_COLORS = ("#56b4e9", "#0072b2", "#e69f00", "#009e73")  # of Okabe and Ito's palette
_TITLES = {
    "drift_m": "drift, m",
    "drift_deg": "drift, degrees",
    "coverage_over_truth": "coverage over that of the true geometry",
    "cpu_ms_per_frame": "CPU time per new frame, ms",
}


@dataclass(frozen=True)
class Drift:
    """Errors of relative poses ``_APART`` frames apart (fewer in a shorter clip), medians; and what was selected."""

    metres: float
    degrees: float
    coverage: float


def window_rows(
    recording: Path | None,
    *,
    noise: SimulatedNoise | None = None,
    windows: Sequence[int] = WINDOWS,
    anchors: Sequence[int] = ANCHORS,
    frames: int = 120,
    seeds: int = 2,
    sizes: Sequence[str] = ("tiny", "mid"),
) -> list[Row]:
    """Rows of a clip of a generated room and, when there is one, of a recording; then those of latency.

    Args:
        recording: with depth and poses.
        noise: of the simulated VGGT; None for its defaults.
        frames: of each clip.
        seeds: draws of the noise that each figure is the mean of.
        sizes: of ``benchmarks.encoder.SIZES``; those above tiny are measured with the middle number of anchors only.

    Raises:
        SourceError: the recording cannot be read.
    """
    noise = noise or SimulatedNoise()
    clips = {"rooms": true_views(make_clips([split_seed("test", 1)], ClipConfig(frames, 112, 84))[0].frames())}
    if recording is not None:
        with open_source(recording) as source:
            every = true_views(frame for frame, _ in zip(source, range(2 * frames), strict=False))
        clips[source.name] = dict(list(every.items())[::2])
    rows: list[Row] = []
    for name, views in clips.items():
        for window in windows:
            for anchor in anchors:
                runs = [drift(views, window, anchor, noise, seed=seed) for seed in range(seeds)]
                found = Drift(*np.mean([astuple(run) for run in runs], axis=0).tolist())
                ways = (
                    f"simulated VGGT, {noise}, {len(views)} frames, window {window}, anchors {anchor}, "
                    f"K {_SELECTED}, mean of {seeds} draws of the noise"
                )
                start = f"windows.{name}.w{window}.a{anchor}"
                apart = min(_APART, len(views) - 1)
                rows.append(Row(f"{start}.drift_m", found.metres, f"m per {apart} frames", detail=ways))
                rows.append(Row(f"{start}.drift_deg", found.degrees, f"deg per {apart} frames", detail=ways))
                rows.append(Row(f"{start}.coverage_over_truth", found.coverage, "", detail=ways))
    for size in sizes:
        rows += latency_rows(size, windows, anchors if size == "tiny" else anchors[len(anchors) // 2 :][:1])
    return rows


def true_views(frames: Iterable[Frame]) -> dict[int, TrueView]:
    """The true view of each frame, thinned to about 40 columns; frames without depth, pose or camera are left out."""
    views = {}
    for frame in frames:
        if frame.depth_m is not None and frame.scene_from_cam is not None and frame.intrinsics is not None:
            height, width = frame.depth_m.shape
            stride = max(1, width // _COLUMNS)
            camera = sampled_intrinsics(frame.intrinsics.resized(width, height), stride)
            depth_m = np.where(frame.depth_m > 0, frame.depth_m, np.nan)[::stride, ::stride]
            views[frame.stamp_ns] = TrueView(depth_m.astype(np.float32), camera, frame.scene_from_cam)
    return views


def drift(views: dict[int, TrueView], window: int, anchors: int, noise: SimulatedNoise, *, seed: int = 0) -> Drift:
    """Runs a scene over frames without poses and depth, in full windows, and compares it with the truth."""
    encoder = SimulatedVggt(views, noise, window_size=window, anchor_count=anchors, seed=seed)
    config = SceneConfig(
        ring_frames=len(views), keyframes=0, rate_hz=0.0, selected_frames=_SELECTED, min_confidence_percentile=0.0
    )
    scene = Scene(config, encoder)
    recorder = SceneRecorder(scene)
    for number, stamp_ns in enumerate(views, 1):
        scene.add(Frame(stamp_ns, np.zeros((3, 4, 3), np.uint8)))
        if number % window == 0 or number == len(views):
            recorder.process()
    found = np.array([frame.scene_from_cam for frame in recorder.seen])
    truth = np.array([views[frame.stamp_ns].scene_from_cam for frame in recorder.seen])
    # the scene's unit is its own: one factor for the whole clip, by its trajectory
    scale = fit_sim3(found[:, :3, 3], truth[:, :3, 3]).scale
    found[:, :3, 3] *= scale
    apart = min(_APART, len(found) - 1)
    error = inverse_pose(inverse_pose(truth[:-apart]) @ truth[apart:]) @ (inverse_pose(found[:-apart]) @ found[apart:])
    return Drift(
        float(np.median(np.linalg.norm(error[:, :3, 3], axis=1))),
        float(np.rad2deg(np.median(rotation_angle_rad(error[:, :3, :3])))),
        _coverage(views, scene.snapshot.selection.stamps_ns),
    )


def _coverage(views: dict[int, TrueView], selected: Sequence[int]) -> float:
    """True voxels of the frames selected by what the encoder said, over those of a greedy selection by the truth."""
    seen = []
    for view in views.values():
        points = to_scene(unproject_depth(view.depth_m, view.intrinsics), view.scene_from_cam)
        seen.append(voxel_keys(points.reshape(-1, 3), _TRUE_VOXEL_M))
    voxels, count = dense_ids(seen)
    stamps = list(views)
    best, _ = lazy_greedy(voxels, count, len(selected))
    return covered_by(voxels, count, [stamps.index(s) for s in selected]) / covered_by(voxels, count, best)


def latency_rows(size_name: str, windows: Sequence[int], anchors: Sequence[int]) -> list[Row]:
    """CPU time per new frame of one call of VGGT with random weights, its alignment included.

    All sizes run on pictures of 224x168: what matters is how the time grows with the window.
    """
    size = SIZES[size_name]
    width, height = _PICTURE_PX
    model = random_vggt(size.config)
    random = np.random.default_rng(0)
    shape = (height, width, 3)
    pictures = [Frame(1 + i, random.integers(0, 255, shape, np.uint8)) for i in range(max(windows) + max(anchors))]
    rows = []
    for window in windows:
        for anchor in anchors:
            encoder = VggtGeometryEncoder(
                model, device="cpu", image_width_px=width, window_size=max(window, anchor), anchor_count=anchor
            )
            known = encoder.encode(pictures[:anchor], [])
            hooks = [Anchor(f, g) for f, g in zip(pictures, known, strict=False)]
            start = time.process_time()
            encoder.encode(pictures[anchor : anchor + window], hooks)
            spent_s = time.process_time() - start
            ways = f"VGGT {size_name}, random weights, {width}x{height}, window {window}, anchors {anchor}"
            name = f"windows.{size_name}.w{window}.a{anchor}.cpu_ms_per_frame"
            rows.append(Row(name, 1e3 * spent_s / window, "ms of CPU time", detail=ways))
    return rows


def draw_windows(rows: Sequence[Row], path: Path) -> None:
    """Drift, coverage and CPU time over the window's size, a line per number of anchors, as SVG.

    Args:
        rows: of ``window_rows``; others are ignored.

    Raises:
        ConfigurationError: there is no such row.
    """
    curves: dict[tuple[str, str], dict[int, list[tuple[int, float]]]] = {}
    for row in rows:
        if found := re.fullmatch(r"windows\.(.+)\.w(\d+)\.a(\d+)\.(\w+)", row.name):
            lines = curves.setdefault((found[1], found[4]), {})
            lines.setdefault(int(found[3]), []).append((int(found[2]), row.value))
    if not curves:
        raise ConfigurationError("There is no window among the rows to draw; measure with `benchmark windows`.")
    import matplotlib
    from matplotlib.figure import Figure

    places: dict[str, list[str]] = {}
    for place, what in curves:
        places.setdefault(place, []).append(what)
    across = max(len(kinds) for kinds in places.values())
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "windows", "font.size": 9.0}):
        figure = Figure(figsize=(3.4 * across, 2.5 * len(places)), layout="constrained", facecolor="white")
        panels = figure.subplots(len(places), across, squeeze=False)
        for line, (place, kinds) in zip(panels, places.items(), strict=True):
            for axes in line[len(kinds) :]:
                axes.set_axis_off()
            for axes, what in zip(line, kinds, strict=False):
                for (anchors, points), color in zip(sorted(curves[place, what].items()), _COLORS, strict=False):
                    axes.plot(*zip(*sorted(points), strict=True), marker="o", ms=3, color=color, label=f"{anchors}")
                axes.set_title(f"{place}: {_TITLES[what]}", loc="left", fontsize=9)
                axes.set_xlabel("new frames per window")
                if what != "coverage_over_truth":
                    axes.set_ylim(bottom=0)
        panels[0, 0].legend(title="anchors", frameon=False, fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    write_text(path, buffer.getvalue())
