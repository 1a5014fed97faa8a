"""Single frames of a recording by position, for training and scoring; the rest is not decoded where possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.errors import FrameRejectedError, SourceError
from spatial_mllm_ros.recordings.image_folder import image_files
from spatial_mllm_ros.recordings.recording import read_color_file
from spatial_mllm_ros.recordings.rgbd_folder import color_files, is_rgbd_folder
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.recordings.video import VIDEO_SUFFIXES, open_video

#: Total number of frames -> the positions wanted, in growing order.
Pick = Callable[[int], Sequence[int]]


def read_clip(path: Path, pick: Pick) -> list[np.ndarray]:
    """The frames of a recording at the positions that ``pick`` chooses, uint8 [H, W, 3] RGB each.

    Args:
        path: video file, folder of images, RGB-D folder (its colour images), or ROS 2 bag. Bags are decoded whole.
        pick: gives the positions from the number of frames.

    Raises:
        SourceError: the recording does not exist, holds no frame, or a wanted frame cannot be decoded.
    """
    wanted, found, end = _frames(Path(path), pick)
    missing = next((position for position in wanted if position not in found), None)
    if missing is None:
        return [found[position] for position in wanted]
    if missing >= end:
        raise SourceError(f"{path} announces more frames than it holds: decoding ends after {end}.")
    raise SourceError(f"Frame {missing} of {path} cannot be decoded; the file is damaged.")


def readable_frames(path: Path, pick: Pick) -> dict[int, np.ndarray]:
    """As ``read_clip``, by position; frames of a video that cannot be decoded are left out.

    Raises:
        SourceError: as ``read_clip`` for images; for a video, not one of the wanted frames can be decoded.
    """
    wanted, found, _ = _frames(Path(path), pick)
    if not found:
        raise SourceError(f"Not one of the {len(wanted)} frames wanted of {path} can be decoded.")
    return found


def _frames(path: Path, pick: Pick) -> tuple[Sequence[int], dict[int, np.ndarray], int]:
    """The wanted positions, the frames found, and the number of frames that the recording really has."""
    if path.is_dir():
        rgbd = is_rgbd_folder(path)
        files = color_files(path) if rgbd else image_files(path)
        if files:
            wanted = pick(len(files))
            return wanted, {index: _read_image(files[index], upright=not rgbd) for index in wanted}, len(files)
    elif path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return _read_video(path, pick)
    with open_source(path) as source:
        frames = [frame.rgb for frame in source]
    wanted = pick(len(frames))
    return wanted, {index: frames[index] for index in wanted}, len(frames)


def read_image(path: Path) -> np.ndarray:
    """One JPEG or PNG file turned upright, uint8 [H, W, 3] RGB.

    Raises:
        SourceError: the file does not exist or cannot be decoded.
    """
    return _read_image(Path(path), upright=True)


def _read_image(path: Path, *, upright: bool) -> np.ndarray:
    try:
        return read_color_file(path, upright=upright)
    except FrameRejectedError as error:
        raise SourceError(f"{path} cannot be used ({error.cause}): {error}") from error


def _read_video(path: Path, pick: Pick) -> tuple[Sequence[int], dict[int, np.ndarray], int]:
    """As ``_frames``. All frames up to the last wanted one are read, because seeking in a video is not exact."""
    capture, position = open_video(path), 0
    found: dict[int, np.ndarray] = {}
    try:
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if announced < 1:
            raise SourceError(f"{path} does not state its number of frames; convert it to MP4.")
        wanted = pick(announced)
        for position in range(max(wanted) + 1):
            if not capture.grab():
                return wanted, found, position
            if position in wanted:
                good, bgr = capture.retrieve()
                if good:
                    found[position] = np.ascontiguousarray(bgr[:, :, ::-1])
        return wanted, found, position + 1
    finally:
        capture.release()
