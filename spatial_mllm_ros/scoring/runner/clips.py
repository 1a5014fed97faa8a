"""Chooses the frames of a clip that a model sees: spread over time, or those that together show most of the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from spatial_mllm_ros.encoders.base import GeometryEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.spatial_mllm.preparation import evaluation_frame_indices, training_frame_indices
from spatial_mllm_ros.recordings.clips import readable_frames
from spatial_mllm_ros.scene.offline.selection import select_offline


class FrameChoice(str, Enum):
    """How frames are chosen."""

    UNIFORM = "uniform"  #: equal distances, first and last included, as in the published evaluation
    SPACE_AWARE = "space-aware"  #: voxel coverage over candidates at equal distances (arXiv 2505.23747, section 3.3)


@dataclass(frozen=True, eq=False)
class ChosenFrames:
    """Frames of one clip: their positions in it, and uint8 [H, W, 3] RGB each."""

    indices: tuple[int, ...]
    images: tuple[np.ndarray, ...]


#: frames of candidates -> positions among them, in time order
SpaceAwareChoice = Callable[[Sequence[np.ndarray], int], Sequence[int]]


def choose_frames(
    clip: Path, count: int, *, candidates: int = 0, space_aware: SpaceAwareChoice | None = None
) -> ChosenFrames:
    """``count`` frames of a clip; fewer if the clip has fewer or some of them cannot be decoded.

    Args:
        clip: a video or a folder of images, see ``recordings.clips``.
        candidates: frames at equal distances among which ``space_aware`` chooses.
        space_aware: None chooses at equal distances.

    Raises:
        SourceError: the clip cannot be read or has no frame.
    """

    def wanted(total: int) -> Sequence[int]:
        if space_aware is None or total <= count:
            return evaluation_frame_indices(total, min(count, total))
        return training_frame_indices(total, min(candidates, total))

    frames = readable_frames(clip, wanted)
    positions, images = tuple(frames), tuple(frames.values())
    if space_aware is None or len(images) <= count:
        return ChosenFrames(positions, images)
    chosen = space_aware(images, count)
    return ChosenFrames(tuple(positions[i] for i in chosen), tuple(images[i] for i in chosen))


def by_coverage(encoder: GeometryEncoder) -> SpaceAwareChoice:
    """The published sampler on the geometry of ``encoder``, which must take all candidates at once."""

    def choose(images: Sequence[np.ndarray], count: int) -> Sequence[int]:
        frames = [Frame(stamp_ns=1 + i, rgb=image) for i, image in enumerate(images)]
        geometries = encoder.encode(frames, ())
        points = np.stack([geometry.points_scene for geometry in geometries])
        confidence = np.stack([geometry.confidence for geometry in geometries])
        return select_offline(points, confidence, count).indices

    return choose
