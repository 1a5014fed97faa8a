"""Measures what it costs to save and load a scene, and what is lost by it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.saved.save_load import load_scene, read_scene, save_scene
from spatial_mllm_ros.scene.scene import Scene

_REPEATS = 3

_R = TypeVar("_R")


def storage_rows(frames: Iterable[Frame], *, name: str) -> list[Row]:
    """Rows for `spatial_mllm benchmark`: a scene of the default size, filled with ``frames``, saved and loaded.

    Args:
        frames: with depth, poses and intrinsics.
        name: of the recording.
    """
    scene = _empty()
    for frame in frames:
        scene.add(frame)
        scene.process()
    held = scene.content().frames
    parent = Path(tempfile.mkdtemp(prefix="spatial_mllm_ros_"))
    try:
        folder = parent / "scene"
        save_s, save_cpu_s, saved = _fastest(lambda: save_scene(scene, folder))
        snapshot_s, _, _ = _fastest(scene.content)
        read_s, read_cpu_s, (_, content) = _fastest(lambda: read_scene(folder, config=scene.config))
        loaded = _empty()
        restore_s, restore_cpu_s, _ = _fastest(lambda: loaded.restore(content, "benchmark"))
        load_scene(loaded, folder)
        same = loaded.snapshot.selection.stamps_ns == scene.snapshot.selection.stamps_ns
        save_scene(loaded, folder)
        again = read_scene(folder)[1]
    finally:
        shutil.rmtree(parent, ignore_errors=True)
    detail = f"{name}: {saved.frames} frames of {_sizes(saved.image_sizes_px)} with depth; fastest of {_REPEATS}"
    once = np.median([cv2.PSNR(a.rgb, b.rgb) for a, b in zip(held, content.frames, strict=True)])
    twice = np.median([cv2.PSNR(a.rgb, b.rgb) for a, b in zip(held, again.frames, strict=True)])
    return [
        Row("storage.save_s", save_s, "s", "", detail),
        Row("storage.save_cpu_s", save_cpu_s, "s", "", "the same in CPU time, without waiting for the disk"),
        Row("storage.save_s_in_the_worker", snapshot_s, "s", "", "the part for which questions wait"),
        Row("storage.read_s", read_s, "s", "", f"{detail}; every hash checked, pictures decoded"),
        Row("storage.read_cpu_s", read_cpu_s, "s", "", "the same in CPU time"),
        Row("storage.load_s_in_the_worker", restore_s, "s", "", "the part for which questions wait"),
        Row("storage.load_cpu_s_in_the_worker", restore_cpu_s, "s", "", "the same in CPU time"),
        Row("storage.bytes_on_disk", saved.nbytes, "bytes", "", detail),
        Row("storage.bytes_per_pixel_byte", saved.nbytes / saved.pixel_bytes, "", "", "on disk over in memory"),
        Row("storage.same_evidence", float(same), "", "1", "1: the evidence set after loading is the one before"),
        Row("storage.picture_psnr_db", float(once), "dB", "", "median over the frames, against what was held"),
        Row("storage.picture_psnr_db_second_time", float(twice), "dB", "", "loaded, saved and loaded again"),
    ]


def _empty() -> Scene:
    return Scene(SceneConfig(), SensorDepthEncoder())


def _fastest(work: Callable[[], _R]) -> tuple[float, float, _R]:
    """Least seconds, least CPU seconds of the process (the disk does not count there), and the result."""
    seconds, cpu_seconds = [], []
    for _ in range(_REPEATS):
        start_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        result = work()
        cpu_seconds.append((time.process_time_ns() - cpu_ns) / 1e9)
        seconds.append((time.perf_counter_ns() - start_ns) / 1e9)
    return min(seconds), min(cpu_seconds), result


def _sizes(sizes_px: Iterable[tuple[int, int]]) -> str:
    return " and ".join(f"{width}x{height}" for width, height in sizes_px)
