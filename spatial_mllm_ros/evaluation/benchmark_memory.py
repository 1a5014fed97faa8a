"""Figures of a long memory: what ring and keyframes keep of walks that are many times longer than the ring.

Two walks, each seen once from its start to its end: ten generated rooms, for 100 times as many frames as the ring
holds, none of them entered again; and a recording played forth and back with generated rooms in between, so that it is
left and found again. Both are compared with a memory that forgets nothing; see ``benchmark_stream`` for the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_ros.datasets.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.datasets.rooms.world import make_world, split_seed
from spatial_mllm_ros.datasets.sources import open_source
from spatial_mllm_ros.evaluation.benchmark_stream import measure
from spatial_mllm_ros.evaluation.stream_frames import SentFrame, sent_frames
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig

_ROOMS = 10
_ROUNDS = 100  # times the ring
_CONFIG = SceneConfig(ring_frames=32, rate_hz=0.0)
_VISITED_BETWEEN = 2  # worlds between two passes of the recording
_APART_M = 40.0  # farther than any generated world is wide


def memory_rows(
    recording: Path | None,
    *,
    config: SceneConfig = _CONFIG,
    rooms: int = _ROOMS,
    size_px: tuple[int, int] = (160, 120),
) -> list[dict[str, Any]]:
    """Rows of the walk through ``rooms`` rooms and, when there is one, of a recording with rooms in between.

    Args:
        recording: with depth and poses.
        config: of the scene; a ring of 32 frames and else the defaults unless given.
        size_px: of the generated frames.

    Raises:
        SourceError: the recording cannot be read, or has no depth and poses.
    """
    frames = _ROUNDS * config.ring_frames
    worlds = worlds_of(rooms)
    sent: list[SentFrame] = []
    for place, (world, count) in enumerate(worlds):
        # in proportion to its rooms, the last one what is left
        share = frames * count // rooms if place + 1 < len(worlds) else frames - len(sent)
        sent += sent_frames(_walk(world, share, place, size_px))
    rows = measure(f"{rooms}_rooms", sent, len(sent), what=f"walk through {rooms} rooms, once", config=config)
    if recording is not None:
        with open_source(recording) as source:
            own = sent_frames(source)
        mixed: list[SentFrame] = []
        for place, (world, count) in enumerate(worlds[:_VISITED_BETWEEN]):
            mixed += own if place % 2 == 0 else own[::-1]
            mixed += sent_frames(_walk(world, len(own) * count // 2, place + 1, size_px))
        mixed += own
        what = f"recording of {len(own)} frames forth and back, with generated rooms in between"
        rows += measure(f"{source.name}_and_rooms", mixed, len(mixed), what=what, config=config)
    return rows


def worlds_of(rooms: int) -> Sequence[tuple[int, int]]:
    """Numbers of generated test worlds, and how many rooms each has: ``rooms`` in all."""
    worlds: list[tuple[int, int]] = []
    number = 0
    while (left := rooms - sum(count for _, count in worlds)) > 0:
        count = len(make_world(split_seed("test", number)).rooms)
        if count <= left:
            worlds.append((number, count))
        number += 1
    return worlds


def _walk(world: int, frames: int, place: int, size_px: tuple[int, int]) -> Iterator[Frame]:
    """A walk through one world that stands at its own place."""
    (clip,) = make_clips([split_seed("test", world)], ClipConfig(frames, *size_px))
    for frame in clip.frames():
        pose = np.array(frame.scene_from_cam)
        pose[0, 3] += place * _APART_M
        yield Frame(frame.stamp_ns, frame.rgb, frame.camera_frame_id, frame.intrinsics, frame.depth_m, pose)
