"""A few frames out of a recording, by position: what training reads of a video, without decoding all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.datasets.image_folder import image_files
from spatial_mllm_ros.datasets.recording import read_color_file
from spatial_mllm_ros.datasets.rgbd_folder import color_files, is_rgbd_folder
from spatial_mllm_ros.datasets.sources import open_source
from spatial_mllm_ros.datasets.video import VIDEO_SUFFIXES, open_video
from spatial_mllm_ros.errors import FrameRejectedError, SourceError

#: Total number of frames -> the positions wanted, in growing order.
Pick = Callable[[int], Sequence[int]]


def read_clip(path: Path, pick: Pick) -> list[np.ndarray]:
    """The frames of a recording at the positions that ``pick`` chooses, uint8 [H, W, 3] RGB each.

    Args:
        path: video file, folder of images, RGB-D folder (its colour images), or ROS 2 bag. Only bags are read whole.
        pick: from the number of frames.

    Raises:
        SourceError: nothing there, no frame, or a frame that is wanted cannot be decoded.
    """
    path = Path(path)
    if path.is_dir():
        rgbd = is_rgbd_folder(path)
        files = color_files(path) if rgbd else image_files(path)
        if files:
            return [_read_image(files[index], upright=not rgbd) for index in pick(len(files))]
    elif path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return _read_video(path, pick)
    with open_source(path) as source:
        frames = [frame.rgb for frame in source]
    return [frames[index] for index in pick(len(frames))]


def read_image(path: Path) -> np.ndarray:
    """One JPEG or PNG file turned upright, uint8 [H, W, 3] RGB.

    Raises:
        SourceError: it is not there or cannot be decoded.
    """
    return _read_image(Path(path), upright=True)


def _read_image(path: Path, *, upright: bool) -> np.ndarray:
    try:
        return read_color_file(path, upright=upright)
    except FrameRejectedError as error:
        raise SourceError(f"{path} cannot be used ({error.cause}): {error}") from error


def _read_video(path: Path, pick: Pick) -> list[np.ndarray]:
    capture = open_video(path)
    try:
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if announced < 1:
            raise SourceError(f"{path} does not say how many frames it has; convert it to MP4.")
        frames: list[np.ndarray] = []
        position = 0
        for wanted in pick(announced):
            while position <= wanted:  # only the frames that are wanted are converted to pixels
                if not capture.grab():
                    raise SourceError(f"{path} announces {announced} frames, but decoding ends after {position}.")
                position += 1
            found, bgr = capture.retrieve()
            if not found:
                raise SourceError(f"Frame {wanted} of {path} cannot be decoded; the file is damaged.")
            frames.append(np.ascontiguousarray(bgr[:, :, ::-1]))
        return frames
    finally:
        capture.release()
