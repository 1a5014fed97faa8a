"""The rooms of `evaluate rooms`: unseen rooms, the frames that a model sees, and balanced questions about them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import ConfigurationError, SpatialMllmError
from spatial_mllm_ros.rooms.clips import Clip, ClipConfig, make_clips
from spatial_mllm_ros.rooms.renderer.sensor import CAMERAS
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.rooms.world.world import SPLITS, split_seed
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.greedy import dense_ids, fill_up, lazy_greedy
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.voxels import coarsen
from spatial_mllm_ros.scene_questions.balance import AnswerBalancer
from spatial_mllm_ros.scene_questions.builder import candidate_questions
from spatial_mllm_ros.scene_questions.scene_question import SceneQuestion
from spatial_mllm_ros.scoring.runner.clips import FrameChoice

_log = logging.getLogger(__name__)
_TOGETHER = 4  # rooms rendered at once; at least two, so that each has another one beside it
_POINT_COLUMNS = 160  # of the point map that frames are chosen by; the node's at 640 pixels with its stride of 4


@dataclass(frozen=True)
class RoomSetConfig:
    """Which rooms, frames and questions.

    Attributes:
        split, first, worlds: the rooms.
        per_type: most questions per type and room, of each of the two sets (see ``AskedRoom``).
        frames: number that the ablations of the main table see, at equal distances over the walk.
        compared_frames: evidence sizes at which the two ways of choosing frames are compared; () for none.
        candidates: frames of the whole walk, at equal distances, out of which frames are chosen.
        width_px, height_px: of the images.
        camera: name out of ``sensor.CAMERAS``; "noisy" is what training sees.
    """

    split: str = "test"
    first: int = 0
    worlds: int = 110
    per_type: int = 1
    frames: int = 16
    compared_frames: tuple[int, ...] = (8, 16, 32)
    candidates: int = 64
    width_px: int = 224
    height_px: int = 168
    camera: str = "noisy"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigurationError(f"The split is {self.split!r}; use one of {', '.join(SPLITS)}.")
        if self.camera not in CAMERAS:
            raise ConfigurationError(f"The camera is {self.camera!r}; use one of {', '.join(CAMERAS)}.")
        if self.worlds < 2 or self.per_type < 1 or self.first < 0:
            raise ConfigurationError(
                f"worlds is {self.worlds}, per_type {self.per_type}, first {self.first}; they must be at least 2, 1, 0."
            )
        for count in (self.frames, *self.compared_frames):
            if not 1 <= count <= self.candidates:
                raise ConfigurationError(
                    f"{count} frames cannot be chosen from {self.candidates} candidates; give at least as many."
                )

    def clip(self) -> ClipConfig:
        """How the walks are rendered."""
        return ClipConfig(self.candidates, self.width_px, self.height_px, sensor=CAMERAS[self.camera])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"compared_frames": list(self.compared_frames)}


@dataclass(frozen=True, eq=False)
class AskedRoom:
    """One room: the whole walk with its truth, the frames that a model sees, and the questions.

    Attributes:
        clip: the candidates.
        uniform: indices of the frames of the main table.
        chosen: the same for every pair of evidence size and way of choosing that is compared.
        questions: answerable from the frames ``uniform``, as in training.
        walk_questions: answerable from the whole walk, so that they favour no choice of frames.
    """

    clip: Clip
    uniform: tuple[int, ...]
    chosen: Mapping[tuple[int, FrameChoice], tuple[int, ...]]
    questions: Sequence[SceneQuestion]
    walk_questions: Sequence[SceneQuestion]

    @property
    def name(self) -> str:
        """The room's name, as in its questions."""
        return self.clip.annotation.name


@dataclass
class RoomSet:
    """Makes the rooms in groups of at least two. Iterate once.

    A room that cannot be made is left out, logged, and counted in ``failed``.
    """

    config: RoomSetConfig
    failed: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[list[AskedRoom]]:
        config = self.config
        balancers = AnswerBalancer(seed=0), AnswerBalancer(seed=1)
        groups = np.array_split(np.arange(config.worlds), max(1, config.worlds // _TOGETHER))
        for group in groups:
            clips: list[Clip] = []
            for number in group:
                try:
                    clips += make_clips([split_seed(config.split, config.first + int(number))], config.clip())
                except SpatialMllmError as error:
                    self.failed[error.code] += 1
                    _log.warning("Room %d of %s is left out (%s): %s", number, config.split, error.code, error)
            if clips:
                yield [self._room(clip, balancers) for clip in clips]

    def _room(self, clip: Clip, balancers: tuple[AnswerBalancer, AnswerBalancer]) -> AskedRoom:
        config = self.config
        uniform = uniform_indices(config.candidates, config.frames)
        seen = clip.annotation.visibility
        of_uniform = None if seen is None else seen.of_frames(np.array(uniform))
        shown = replace(clip.annotation, visibility=of_uniform)
        asked = [
            balancer.choose(candidate_questions(scene, seed=number, vocabulary=LABELS), per_type=config.per_type)
            for number, (scene, balancer) in enumerate(zip((shown, clip.annotation), balancers, strict=True))
        ]
        chosen: dict[tuple[int, FrameChoice], tuple[int, ...]] = {}
        aware = space_aware_indices(clip, config.compared_frames)
        for count, indices in zip(config.compared_frames, aware, strict=True):
            chosen[count, FrameChoice.UNIFORM] = uniform_indices(config.candidates, count)
            chosen[count, FrameChoice.SPACE_AWARE] = indices
        return AskedRoom(clip, uniform, chosen, asked[0], asked[1] if config.compared_frames else ())


def uniform_indices(total: int, count: int) -> tuple[int, ...]:
    """``count`` of ``total`` frames, each in the middle of its part of the walk, as clips for training are taken."""
    return tuple(int((2 * i + 1) * total / (2 * count)) for i in range(count))


def space_aware_indices(clip: Clip, counts: Sequence[int]) -> list[tuple[int, ...]]:
    """The evidence set of each size that the node would have after the walk, with true depth and poses.

    Where no frame adds a voxel any more, those that add most on the finest grid follow, then those farthest in time.
    """
    if not counts:
        return []
    frames = list(clip.frames())
    pixels = sum(frame.rgb.nbytes + (0 if frame.depth_m is None else frame.depth_m.nbytes) for frame in frames)
    config = SceneConfig(ring_frames=len(frames), ring_bytes=2 * pixels, keyframes=0, rate_hz=0.0)
    scene = Scene(config, SensorDepthEncoder(pixel_stride=max(1, clip.intrinsics.width_px // _POINT_COLUMNS)))
    for frame in frames:
        scene.add(frame)
    scene.process()
    placed, level = scene.snapshot.placed, scene.snapshot.level
    voxels, total = dense_ids([coarsen(record.fine_keys, level) for record in placed])
    finest, finest_total = dense_ids([record.fine_keys for record in placed])
    stamps = [record.stamp_ns for record in placed]
    index = {int(stamp): n for n, stamp in enumerate(clip.stamps_ns)}
    found = []
    for count in counts:
        picks, _ = lazy_greedy(voxels, total, count)
        picks += fill_up(finest, finest_total, picks, stamps, count)
        found.append(tuple(sorted(index[stamps[pick]] for pick in picks)))
    return found
