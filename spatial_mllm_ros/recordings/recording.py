"""What all recordings share: one pass in stamp order, which counts broken frames by cause and leaves them out."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import cv2
import numpy as np

from spatial_mllm_ros.errors import FrameRejectedError, SourceError
from spatial_mllm_ros.frames.codec import decode_compressed_color, validate_compressed
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics, same_aspect

logger = logging.getLogger(__name__)

#: Stamp of the first frame of a recording without a clock of its own (stamps must be above 0).
FIRST_STAMP_NS = 1_000_000_000

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

_LOGGED_PER_CAUSE = 3  # a recording can lack ten thousand depth images; all of them are counted

EntryT = TypeVar("EntryT")
SelfT = TypeVar("SelfT")


class Recording(ABC, Generic[EntryT]):
    """Base of the recordings: subclasses list their entries and turn one entry into a frame.

    Attributes:
        name: the recording's own name, without the folder it lies in.
        kind: how it is stored: ``rgbd_folder``, ``image_folder``, ``video`` or ``bag``.
        frame_count: colour images in the recording, good and broken ones; None where it is not known beforehand.
        rejected: how many frames the current or last pass left out, by cause.
    """

    kind: str

    def __init__(self, name: str, frame_count: int | None) -> None:
        self.name = name
        self.frame_count = frame_count
        self.rejected: Counter[str] = Counter()

    @abstractmethod
    def _entries(self) -> Iterable[EntryT]:
        """The entries of the recording, in stamp order as far as it is known without decoding."""

    @abstractmethod
    def _frame(self, entry: EntryT) -> Frame:
        """Decodes one entry.

        Raises:
            FrameRejectedError: this frame is broken; the pass goes on with the next one.
            SourceError: the recording cannot be read any further.
        """

    def __iter__(self) -> Iterator[Frame]:
        """One pass over the recording, from its start, in strictly growing stamps.

        Raises:
            SourceError: the recording cannot be read any further, or not one of its frames could be used.
        """
        self.rejected.clear()
        last_ns = given = 0
        for entry in self._entries():
            try:
                frame = self._frame(entry)
                if frame.stamp_ns <= last_ns:
                    raise FrameRejectedError(
                        "stamp_order",
                        f"A frame is stamped {frame.stamp_ns} ns, which is not after the one before it ({last_ns} ns).",
                    )
            except FrameRejectedError as error:
                self._reject(error.cause, str(error))
                continue
            last_ns = frame.stamp_ns
            given += 1
            yield frame
        if self.rejected:
            logger.warning("%s: %d frames used, left out: %s.", self.name, given, counts_in_words(self.rejected))
        if not given:
            why = counts_in_words(self.rejected) or "it holds none"
            raise SourceError(
                f"Not one frame of {self.name!r} could be used ({why}); the warnings above show the first ones."
            )

    def _reject(self, cause: str, message: str, count: int = 1) -> None:
        self.rejected[cause] += count
        if self.rejected[cause] <= _LOGGED_PER_CAUSE:
            logger.warning("%s: frame left out (%s): %s", self.name, cause, message)

    def close(self) -> None:
        """Closes open files."""

    def __enter__(self: SelfT) -> SelfT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def counts_in_words(counts: Counter[str]) -> str:
    """``{"pose": 2}`` as "2 x pose", causes in alphabetical order."""
    return ", ".join(f"{counts[cause]} x {cause}" for cause in sorted(counts))


def natural_key(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts names by the numbers in them: frame_9 before frame_10."""
    parts = re.split(r"(\d+)", name)
    return tuple((text, int(digits)) for text, digits in zip(parts[::2], [*parts[1::2], "-1"], strict=True))


def read_color_file(path: Path, *, upright: bool = False) -> np.ndarray:
    """The image of a JPEG or PNG file, uint8 [H, W, 3], RGB.

    Args:
        upright: whether the image is turned as its EXIF orientation states (photographs); otherwise the pixels are as
            stored, to which depth and intrinsics belong.

    Raises:
        FrameRejectedError: the file cannot be read, is truncated, or is no image.
    """
    data = read_bytes(path)
    image_format = "png" if path.suffix.lower() == ".png" else "jpeg"
    try:
        if not upright:
            return decode_compressed_color(image_format, data)
        validate_compressed(image_format, data)
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except FrameRejectedError as error:
        raise FrameRejectedError(error.cause, f"{path.name}: {error}") from error
    except cv2.error as error:
        raise FrameRejectedError("payload", f"{path.name} cannot be decoded; it is damaged.") from error
    if bgr is None:
        raise FrameRejectedError("payload", f"{path.name} cannot be decoded; it is damaged.")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        FrameRejectedError: with cause ``missing`` or ``unreadable``.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FrameRejectedError("missing", f"{path.name} does not exist.") from error
    except OSError as error:
        raise FrameRejectedError("unreadable", f"{path.name} cannot be read: {error.strerror}.") from error


def intrinsics_for(intrinsics: Intrinsics | None, rgb: np.ndarray) -> Intrinsics | None:
    """The camera for ``rgb`` [H, W, 3]; None where none is known.

    Raises:
        FrameRejectedError: see ``Intrinsics.for_image``.
    """
    height, width = rgb.shape[:2]
    return None if intrinsics is None else intrinsics.for_image(width, height)


def check_depth_shape(depth_m: np.ndarray, rgb: np.ndarray, what: str) -> None:
    """Refuses a depth image whose field of view cannot be that of the colour image.

    Raises:
        FrameRejectedError: with cause ``depth_size``.
    """
    if not same_aspect(depth_m.shape, rgb.shape):
        raise FrameRejectedError(
            "depth_size",
            f"{what} is {depth_m.shape[1]}x{depth_m.shape[0]} and the colour image {rgb.shape[1]}x{rgb.shape[0]}, "
            "which is not the same field of view; register the depth to the colour camera.",
        )


def check_pose(scene_from_cam: np.ndarray, what: str) -> np.ndarray:
    """Returns ``scene_from_cam`` [4, 4] if it is finite and a rigid motion (within 1 %).

    Raises:
        FrameRejectedError: with cause ``pose``.
    """
    if not np.isfinite(scene_from_cam).all():
        raise FrameRejectedError("pose", f"{what} holds values that are not finite (tracking lost?).")
    rotation = scene_from_cam[:3, :3]
    orthonormal = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2)
    if not orthonormal or np.linalg.det(rotation) < 0 or not np.allclose(scene_from_cam[3], (0, 0, 0, 1)):
        raise FrameRejectedError("pose", f"{what} is not a rigid motion: rotation and translation, last row 0 0 0 1.")
    return scene_from_cam
