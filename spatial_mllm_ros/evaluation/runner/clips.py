"""Which frames of a clip a model sees: spread over time, or the ones that together show the most of the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.datasets.image_folder import image_files
from spatial_mllm_ros.datasets.recording import read_color_file
from spatial_mllm_ros.datasets.video import open_video
from spatial_mllm_ros.encoders.base import GeometryEncoder
from spatial_mllm_ros.errors import FrameRejectedError, SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.preparation import evaluation_frame_indices, training_frame_indices
from spatial_mllm_ros.scene.selection import select_offline


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
    """``count`` frames of a video file or a folder of images, fewer where the clip has fewer.

    Args:
        candidates: frames at equal distances among which ``space_aware`` chooses.
        space_aware: None chooses at equal distances.

    Raises:
        SourceError: the clip cannot be read or has no frame.
    """
    total = frame_count(clip)
    if space_aware is None or total <= count:
        indices = evaluation_frame_indices(total, min(count, total))
        return _read(clip, indices)
    offered = _read(clip, training_frame_indices(total, min(candidates, total)))
    chosen = space_aware(offered.images, count)
    return ChosenFrames(tuple(offered.indices[i] for i in chosen), tuple(offered.images[i] for i in chosen))


def by_coverage(encoder: GeometryEncoder) -> SpaceAwareChoice:
    """The published sampler on the geometry of ``encoder``, which must take all candidates at once."""

    def choose(images: Sequence[np.ndarray], count: int) -> Sequence[int]:
        frames = [Frame(stamp_ns=1 + i, rgb=image) for i, image in enumerate(images)]
        geometries = encoder.encode(frames, ())
        points = np.stack([geometry.points_scene for geometry in geometries])
        confidence = np.stack([geometry.confidence for geometry in geometries])
        return select_offline(points, confidence, count).indices

    return choose


def frame_count(clip: Path) -> int:
    """How many frames the clip announces.

    Raises:
        SourceError: it cannot be opened, or announces none.
    """
    if clip.is_dir():
        total = len(image_files(clip))
    else:
        capture = open_video(clip)
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
    if total < 1:
        raise SourceError(f"{clip} has no frame.")
    return total


def _read(clip: Path, indices: Sequence[int]) -> ChosenFrames:
    images = _read_folder(clip, indices) if clip.is_dir() else _read_video(clip, indices)
    if not images:
        raise SourceError(f"Not one of the {len(indices)} frames wanted of {clip} can be decoded.")
    return ChosenFrames(tuple(images), tuple(images.values()))


def _read_folder(folder: Path, indices: Sequence[int]) -> dict[int, np.ndarray]:
    files = image_files(folder)
    try:
        return {index: read_color_file(files[index], upright=True) for index in indices}
    except FrameRejectedError as error:
        raise SourceError(f"A frame of {folder} cannot be used: {error}") from error


def _read_video(path: Path, indices: Sequence[int]) -> dict[int, np.ndarray]:
    """Frames that are not wanted are passed over without being converted; seeking would not be exact."""
    capture, wanted, found = open_video(path), set(indices), {}
    try:
        for index in range(max(indices) + 1):
            if not capture.grab():
                break  # the container announced more frames than it holds
            if index in wanted:
                good, bgr = capture.retrieve()
                if good:
                    found[index] = np.ascontiguousarray(bgr[:, :, ::-1])
    finally:
        capture.release()
    return found
