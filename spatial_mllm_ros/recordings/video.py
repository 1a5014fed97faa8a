"""Video files, read with OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.recording import FIRST_STAMP_NS, Recording, intrinsics_for

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")


class VideoFile(Recording[tuple[int, np.ndarray]]):
    """A video; a frame is stamped 1 s + its presentation time, and is turned upright as the file states.

    Raises:
        SourceError: the file cannot be opened as a video.
    """

    kind = "video"

    def __init__(self, path: Path, *, intrinsics: Intrinsics | None = None) -> None:
        self._path = path
        self._intrinsics = intrinsics
        capture = open_video(path)
        try:
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
        super().__init__(path.name, count if count > 0 else None)

    def _entries(self) -> Iterator[tuple[int, np.ndarray]]:
        capture = open_video(self._path)
        read = 0
        try:
            while True:
                found, bgr = capture.read()
                if not found:
                    break
                read += 1
                yield round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6), bgr
        finally:
            capture.release()
        if self.frame_count is not None and read < self.frame_count:
            self._reject(
                "undecodable",
                f"the file announces {self.frame_count} frames, but only {read} could be decoded.",
                self.frame_count - read,
            )

    def _frame(self, entry: tuple[int, np.ndarray]) -> Frame:
        presented_ns, bgr = entry
        rgb = np.ascontiguousarray(bgr[:, :, ::-1])
        return Frame(stamp_ns=FIRST_STAMP_NS + presented_ns, rgb=rgb, intrinsics=intrinsics_for(self._intrinsics, rgb))


def open_video(path: Path) -> cv2.VideoCapture:
    """Opens a video for reading, with frames turned upright; the caller releases it.

    Raises:
        SourceError: the file cannot be opened as a video.
    """
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise SourceError(
            f"{path} cannot be opened as a video; it is damaged or its codec is not in this build of OpenCV. "
            "Convert it, for example with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
        )
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture
