"""Figures of long walks: how much ring and keyframes keep of walks that are many times longer than the ring.

Two walks, each seen once from its start to its end: ten generated rooms, for 100 times as many frames as the ring
holds, none of them entered again; and a recording played forth and back with generated rooms in between, so that it is
left and found again. Both are compared with a memory that forgets nothing; see ``benchmarks.stream`` for the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.benchmarks.stream import measure
from spatial_mllm_ros.benchmarks.stream_frames import SentFrame, sent_frames
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.world.world import make_world, split_seed
from spatial_mllm_ros.scene.config import SceneConfig

_ROOMS = 10
_ROUNDS = 100  # times the ring
_ROOMS_CONFIG = SceneConfig(ring_frames=16, rate_hz=0.0)  # the walk is 100 rings long, and rendered
_REVISITED_CONFIG = SceneConfig(ring_frames=32, rate_hz=0.0)
_VISITED_BETWEEN = 2  # worlds between two passes of the recording
_SIZE_PX = (112, 84)  # of the generated frames
_APART_M = 40.0  # farther than any generated world is wide


def memory_rows(recording: Path | None) -> list[Row]:
    """Rows of the walk through ten rooms and, when there is one, of a recording with rooms in between.

    Raises:
        SourceError: the recording cannot be read, or has no depth and poses.
    """
    return [*room_rows(), *([] if recording is None else revisited_rows(recording))]


def room_rows(
    *, config: SceneConfig = _ROOMS_CONFIG, rooms: int = _ROOMS, size_px: tuple[int, int] = _SIZE_PX
) -> list[Row]:
    """Rows of a walk through ``rooms`` rooms that is 100 times as long as the ring and enters none of them again."""
    frames = _ROUNDS * config.ring_frames
    worlds = worlds_of(rooms)
    sent: list[SentFrame] = []
    for place, (world, count) in enumerate(worlds):
        # in proportion to its rooms, the last one what is left
        share = frames * count // rooms if place + 1 < len(worlds) else frames - len(sent)
        sent += sent_frames(_walk(world, share, place, size_px))
    return measure(f"{rooms}_rooms", sent, len(sent), what=f"walk through {rooms} rooms, once", config=config)


def revisited_rows(
    recording: Path, *, config: SceneConfig = _REVISITED_CONFIG, size_px: tuple[int, int] = _SIZE_PX
) -> list[Row]:
    """Rows of a recording played forth, back and forth again, with generated rooms in between.

    Raises:
        SourceError: it cannot be read, or has no depth and poses.
    """
    with open_source(recording) as source:
        own = sent_frames(source)
    mixed: list[SentFrame] = []
    for place, (world, _) in enumerate(worlds_of(_ROOMS)[:_VISITED_BETWEEN]):
        mixed += own if place % 2 == 0 else own[::-1]
        mixed += sent_frames(_walk(world, len(own), place + 1, size_px))
    mixed += own
    what = f"recording of {len(own)} frames forth, back and forth, with generated rooms in between"
    return measure(f"{source.name}_and_rooms", mixed, len(mixed), what=what, config=config)


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
