"""RGB-D folders in the layout of 7-Scenes and tsdf-fusion: one colour, depth and pose file per frame number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError, SourceError
from spatial_mllm_ros.frames.codec import depth_from_millimetres
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.image_headers import read_png_header
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.recording import (
    FIRST_STAMP_NS,
    Recording,
    check_depth_shape,
    check_pose,
    intrinsics_for,
    read_bytes,
    read_color_file,
)

#: Frame numbers count at the rate of the sensor that 7-Scenes was recorded with.
DEFAULT_NUMBER_RATE_HZ = 30.0
INTRINSICS_FILE = "camera-intrinsics.txt"

_COLOR_NAME = re.compile(r"(?P<stem>.*?(?P<number>\d+))\.color\.(?:jpg|jpeg|png)", re.IGNORECASE)


def is_rgbd_folder(folder: Path) -> bool:
    """Whether ``folder`` holds ``*.color.jpg|png`` files and depth files beside them."""
    return any(folder.glob("*.depth.png")) and any(_COLOR_NAME.fullmatch(path.name) for path in folder.iterdir())


class RgbdFolder(Recording[tuple[int, Path]]):
    """A folder of ``NAME-NUMBER.color.jpg|png``, ``.depth.png``, ``.pose.txt`` and one ``camera-intrinsics.txt``.

    The depth is in uint16 millimetres and registered to the colour camera; 0 and 65535 mean no reading. The pose file
    holds the 4x4 camera-to-scene matrix in metres, OpenCV camera axes. A frame is stamped 1 s + number / ``rate_hz``.
    Where no frame has a pose file, frames come without poses; otherwise a frame without one is left out.

    Raises:
        SourceError: no colour file, or no usable intrinsics.
        ConfigurationError: ``rate_hz`` is not above 0.
    """

    kind = "rgbd_folder"

    def __init__(self, folder: Path, *, rate_hz: float | None = None, intrinsics: Intrinsics | None = None) -> None:
        rate_hz = DEFAULT_NUMBER_RATE_HZ if rate_hz is None else rate_hz
        if not rate_hz > 0:
            raise ConfigurationError(f"rate_hz is {rate_hz}; frame numbers per second must be above 0.")
        numbered = _numbered(folder)
        if not numbered:
            raise SourceError(f"{folder} holds no NAME-NUMBER.color.jpg or .color.png file.")
        super().__init__(folder.resolve().name, len(numbered))
        self._numbered = numbered
        self._rate_hz = rate_hz
        self._has_poses = any(folder.glob("*.pose.txt"))
        self._intrinsics = intrinsics or _intrinsics_of(folder, self._numbered)

    def frame_at(self, position: int) -> Frame:
        """The frame at a position in the order of the numbers, 0 to ``frame_count`` - 1.

        Raises:
            FrameRejectedError: the frame is broken.
        """
        return self._frame(self._numbered[position])

    def _entries(self) -> Iterable[tuple[int, Path]]:
        return self._numbered

    def _frame(self, entry: tuple[int, Path]) -> Frame:
        number, color_path = entry
        stem = _COLOR_NAME.fullmatch(color_path.name)["stem"]  # type: ignore[index]
        rgb = read_color_file(color_path)
        depth_path = color_path.with_name(f"{stem}.depth.png")
        depth_m = _read_depth(depth_path)
        check_depth_shape(depth_m, rgb, depth_path.name)
        return Frame(
            stamp_ns=FIRST_STAMP_NS + round(number * 1e9 / self._rate_hz),
            rgb=rgb,
            intrinsics=intrinsics_for(self._intrinsics, rgb),
            depth_m=depth_m,
            scene_from_cam=_read_pose(color_path.with_name(f"{stem}.pose.txt")) if self._has_poses else None,
        )


def color_files(folder: Path) -> list[Path]:
    """The colour images of an RGB-D folder in order of their numbers."""
    return [path for _, path in _numbered(folder)]


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """(number, colour image), in order."""
    found = [(int(match["number"]), path) for path in folder.iterdir() if (match := _COLOR_NAME.fullmatch(path.name))]
    return sorted(found, key=lambda item: (item[0], item[1].name))


def _intrinsics_of(folder: Path, numbered: list[tuple[int, Path]]) -> Intrinsics:
    """The 3x3 matrix of ``camera-intrinsics.txt``, for an image of the size of the first readable colour image."""
    path = folder / INTRINSICS_FILE
    if not path.is_file():
        raise SourceError(
            f"{folder} holds no {INTRINSICS_FILE}; write the 3x3 camera matrix in pixels there, or give the intrinsics "
            "as an option."
        )
    try:
        k = _read_matrix(path, 3)
        for _, color_path in numbered:
            try:
                height, width = read_color_file(color_path).shape[:2]
            except FrameRejectedError:
                continue  # counted when the pass over the recording comes to it
            return Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2], width, height)
    except (ValueError, ConfigurationError) as error:
        raise SourceError(f"{path}: {error} Write the 3x3 camera matrix in pixels, three numbers per line.") from error
    raise SourceError(f"Not one colour image of {folder} can be decoded; record it again.")


def _read_depth(path: Path) -> np.ndarray:
    """float32 [h, w], metres, NaN where there is no reading."""
    try:
        data = read_bytes(path)
    except FrameRejectedError as error:
        raise FrameRejectedError("no_depth", str(error)) from error
    try:
        read_png_header(memoryview(data))  # refuses a truncated file, which OpenCV would fill up without a warning
        millimetres = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (FrameRejectedError, cv2.error) as error:
        raise FrameRejectedError("depth", f"{path.name}: {error}") from error
    if millimetres is None or millimetres.dtype != np.uint16 or millimetres.ndim != 2:
        what = "damaged" if millimetres is None else f"{millimetres.dtype} with shape {millimetres.shape}"
        raise FrameRejectedError("depth", f"{path.name} is {what}; expected a one-channel 16-bit PNG in millimetres.")
    return depth_from_millimetres(millimetres)


def _read_pose(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FrameRejectedError("no_pose", f"{path.name} does not exist.")
    try:
        return check_pose(_read_matrix(path, 4), path.name)
    except (ValueError, OSError) as error:
        raise FrameRejectedError("pose", f"{path.name}: {error}") from error


def _read_matrix(path: Path, size: int) -> np.ndarray:
    """A text file of ``size`` lines of ``size`` numbers, float64 [size, size]; ValueError names the line."""
    rows = [
        (n, line.split()) for n, line in enumerate(path.read_text(errors="replace").splitlines(), 1) if line.strip()
    ]
    if len(rows) != size:
        raise ValueError(f"There are {len(rows)} lines with numbers instead of {size}.")
    matrix = np.empty((size, size))
    for row, (number, words) in enumerate(rows):
        if len(words) != size:
            raise ValueError(f"Line {number} has {len(words)} numbers instead of {size}.")
        try:
            matrix[row] = [float(word) for word in words]
        except ValueError as error:
            raise ValueError(f"Line {number} holds something that is not a number: {' '.join(words)!r}.") from error
    return matrix


def write_rgbd_folder(folder: Path, frames: Iterable[Frame], *, jpeg_quality: int = 95) -> int:
    """Writes ``frames`` in the layout that :class:`RgbdFolder` reads, and returns their number.

    Colour becomes JPEG. Depth is rounded to millimetres, and becomes 0 where there is none or it is 65.535 m or more.
    The frame number is the time since 1 s at 30 Hz.

    Args:
        folder: made where it does not exist; it must not hold a recording.
        frames: all with depth, pose and the same intrinsics.

    Raises:
        SourceError: the folder holds colour images already, or a frame lacks data that the layout needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(_COLOR_NAME.fullmatch(path.name) for path in folder.iterdir()):
        raise SourceError(f"{folder} holds a recording already; give another folder or empty this one.")
    count, last_number = 0, -1
    first_intrinsics: Intrinsics | None = None
    for frame in frames:
        number = round((frame.stamp_ns - FIRST_STAMP_NS) * DEFAULT_NUMBER_RATE_HZ / 1e9)
        if number <= last_number:
            raise SourceError(
                f"The frame stamped {frame.stamp_ns} ns gets number {number}, not above {last_number} before it; the "
                "layout holds frames from 1 s on, 1/30 s apart or more."
            )
        if frame.depth_m is None or frame.scene_from_cam is None or frame.intrinsics is None:
            raise SourceError(
                f"The frame stamped {frame.stamp_ns} ns lacks depth, pose or intrinsics; the layout needs all."
            )
        first_intrinsics = first_intrinsics or frame.intrinsics
        if frame.intrinsics != first_intrinsics:
            raise SourceError(f"The intrinsics change at {frame.stamp_ns} ns; the layout holds one camera.")
        if count == 0:
            np.savetxt(folder / INTRINSICS_FILE, frame.intrinsics.matrix())
        stem = folder / f"frame-{number:06d}"
        _write_image(Path(f"{stem}.color.jpg"), frame.rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        _write_image(Path(f"{stem}.depth.png"), depth_to_millimetres(frame.depth_m), [])
        np.savetxt(f"{stem}.pose.txt", frame.scene_from_cam)
        count, last_number = count + 1, number
    return count


def depth_to_millimetres(depth_m: np.ndarray) -> np.ndarray:
    """Depth as 16UC1 holds it: uint16 [h, w] millimetres, 0 where there is no reading or it does not fit."""
    millimetres = np.rint(np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0) * np.float32(1000.0))
    return np.where((millimetres > 0) & (millimetres < 65535), millimetres, 0).astype(np.uint16)


def _write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    if not cv2.imwrite(str(path), np.ascontiguousarray(image), options):
        raise SourceError(f"{path} could not be written; is the disk full?")
