"""Camera messages to arrays: validation first, then decoding, on plain header fields and without ROS.

``validate_image`` and ``validate_compressed`` are the only gate a camera payload passes; a caller that decodes with
another library (cv_bridge) calls them first, so both paths refuse the same messages with the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames.image_headers import ImageHeader, read_jpeg_header, read_png_header

MAX_SIDE_PX = 16_384  #: larger images are refused: no camera in use sends them, and a broken header easily does
MAX_PIXELS = 64 * 1024 * 1024  #: bound on height * width, so that one message cannot take the memory of the node
MAX_PAYLOAD_BYTES = 1 << 30  #: bound on height * step and on a compressed payload

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}
COLOR_ENCODINGS = tuple(_CHANNELS)
DEPTH_ENCODINGS = ("16UC1", "32FC1")
_DEPTH_ITEM_BYTES = {"16UC1": 2, "32FC1": 4}
_U16_MISSING = 65_535
_MM_PER_M = np.float32(1000.0)


@dataclass(frozen=True)
class ImageLayout:
    """Where the pixels of a validated raw image lie in its payload."""

    encoding: str
    height_px: int
    width_px: int
    step_bytes: int
    channels: int
    item_bytes: int
    is_bigendian: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of a row that hold pixels; the rest of ``step_bytes`` is padding."""
        return self.width_px * self.channels * self.item_bytes


def validate_image(
    encoding: Any,
    height: Any,
    width: Any,
    step: Any,
    is_bigendian: Any,
    data: Any,
    *,
    accepted: Sequence[str] = COLOR_ENCODINGS,
) -> ImageLayout:
    """Checks the header fields of a ``sensor_msgs/Image`` against its payload, before a byte of it is used.

    Args:
        accepted: the encodings that this topic may have (``COLOR_ENCODINGS`` or ``DEPTH_ENCODINGS``).

    Raises:
        FrameRejectedError: cause ``encoding``, ``size``, ``step`` or ``payload``.
    """
    if not isinstance(encoding, str) or encoding not in accepted:
        raise FrameRejectedError(
            "encoding",
            f"The image encoding is {str(encoding)[:40]!r}; this topic takes {', '.join(accepted)}. "
            "Set the camera driver to one of them.",
        )
    height_px, width_px = _whole(height, "height", "size"), _whole(width, "width", "size")
    _check_size(height_px, width_px)
    step_bytes = _whole(step, "step", "step")
    layout = ImageLayout(
        encoding=encoding,
        height_px=height_px,
        width_px=width_px,
        step_bytes=step_bytes,
        channels=_CHANNELS.get(encoding, 1),
        item_bytes=_DEPTH_ITEM_BYTES.get(encoding, 1),
        is_bigendian=bool(is_bigendian),
    )
    if step_bytes < layout.row_bytes or step_bytes * height_px > MAX_PAYLOAD_BYTES:
        raise FrameRejectedError(
            "step",
            f"The image step is {step_bytes} bytes; a row of {width_px} {encoding} pixels needs {layout.row_bytes}, "
            f"and step * height may not exceed {MAX_PAYLOAD_BYTES}. The driver fills the header wrongly.",
        )
    payload_bytes = _as_bytes(data).size
    if payload_bytes != step_bytes * height_px:
        raise FrameRejectedError(
            "payload",
            f"The image payload is {payload_bytes} bytes; step {step_bytes} * height {height_px} is "
            f"{step_bytes * height_px}. The message was cut or its header is wrong.",
        )
    return layout


def decode_color(
    encoding: Any,
    height: Any,
    width: Any,
    step: Any,
    is_bigendian: Any,
    data: Any,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A raw colour image as uint8 [H, W, 3], R G B; alpha is dropped, grey is repeated.

    Args:
        data: any bytes-like payload (``bytes``, ``array.array('B')``, uint8 array).
        out: uint8 [H, W, 3], contiguous, written to and returned when given (a leased pool slot).

    Raises:
        FrameRejectedError: cause ``encoding``, ``size``, ``step`` or ``payload``.
    """
    layout = validate_image(encoding, height, width, step, is_bigendian, data)
    rows = _as_bytes(data).reshape(layout.height_px, layout.step_bytes)[:, : layout.row_bytes]
    shape = (layout.height_px, layout.width_px, layout.channels)
    pixels = rows.reshape(shape if layout.channels > 1 else shape[:2])
    target = _target(out, (*shape[:2], 3), np.dtype(np.uint8))
    if encoding == "rgb8":
        np.copyto(target, pixels)
        return target
    return _convert(pixels, _TO_RGB[encoding], target)


def decode_depth(
    encoding: Any,
    height: Any,
    width: Any,
    step: Any,
    is_bigendian: Any,
    data: Any,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A raw depth image as float32 [h, w], metres along z, NaN where there is no reading.

    ``16UC1`` is millimetres with 0 and 65535 meaning none; ``32FC1`` is metres with everything that is not finite and
    above 0 meaning none (REP-118).

    Raises:
        FrameRejectedError: cause ``encoding``, ``size``, ``step`` or ``payload``.
    """
    layout = validate_image(encoding, height, width, step, is_bigendian, data, accepted=DEPTH_ENCODINGS)
    rows = _as_bytes(data).reshape(layout.height_px, layout.step_bytes)[:, : layout.row_bytes]
    kind = "u2" if encoding == "16UC1" else "f4"
    values = rows.view(np.dtype((">" if layout.is_bigendian else "<") + kind))
    target = _target(out, values.shape, np.dtype(np.float32))
    if encoding == "16UC1":
        return depth_from_millimetres(values, out=target)
    np.copyto(target, values)
    target[~((target > 0) & np.isfinite(target))] = np.nan
    return target


def depth_from_millimetres(depth_mm: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Depth uint16 [h, w] in millimetres (0 and 65535: no reading) as float32 [h, w] in metres, NaN for none."""
    metres = np.divide(depth_mm, _MM_PER_M, out=out, dtype=np.float32)
    metres[(depth_mm == 0) | (depth_mm == _U16_MISSING)] = np.nan
    return metres


def validate_compressed(image_format: Any, data: Any) -> ImageHeader:
    """Checks, before a ``sensor_msgs/CompressedImage`` is decoded, its format and size and that it is not cut off.

    ``image_format`` is the message's ``format`` ("jpeg", "png", "bgr8; jpeg compressed bgr8"); the payload itself
    decides between JPEG and PNG, as drivers are known to mislabel them.

    Raises:
        FrameRejectedError: cause ``encoding`` (neither JPEG nor PNG, a compressed depth image, 16 bits per channel),
            ``size`` or ``payload``.
    """
    words = image_format.lower() if isinstance(image_format, str) else ""
    if not any(word in words for word in ("jpeg", "jpg", "png")) or "compresseddepth" in words:
        raise FrameRejectedError(
            "encoding",
            f"The compressed image format is {str(image_format)[:60]!r}; colour topics take jpeg and png.",
        )
    payload = _as_bytes(data)
    if payload.size > MAX_PAYLOAD_BYTES:
        raise FrameRejectedError(
            "payload", f"The compressed image is {payload.size} bytes; at most {MAX_PAYLOAD_BYTES} are taken."
        )
    raw = payload.data
    header = read_png_header(raw) if bytes(raw[:4]) == b"\x89PNG" else read_jpeg_header(raw)
    _check_size(header.height_px, header.width_px)
    if header.bits_per_channel > 8:
        raise FrameRejectedError(
            "encoding",
            f"The {header.kind} image has {header.bits_per_channel} bits per channel; colour images have 8. "
            "A depth image belongs on the depth topic, uncompressed as 16UC1 or 32FC1.",
        )
    return header


def decode_compressed_color(image_format: Any, data: Any, out: np.ndarray | None = None) -> np.ndarray:
    """A JPEG or PNG image as uint8 [H, W, 3], R G B; alpha is dropped, grey is repeated.

    The EXIF orientation is ignored, always: camera intrinsics and depth are for the pixels as stored.

    Args:
        out: uint8 [H, W, 3], contiguous, written to and returned when given.

    Raises:
        FrameRejectedError: cause ``encoding``, ``size`` or ``payload``.
    """
    header = validate_compressed(image_format, data)
    target = _target(out, (header.height_px, header.width_px, 3), np.dtype(np.uint8))
    try:
        bgr = cv2.imdecode(_as_bytes(data), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as err:
        raise _undecodable(header) from err
    if bgr is None or bgr.shape != target.shape:
        raise _undecodable(header)
    return _convert(bgr, cv2.COLOR_BGR2RGB, target)


def _undecodable(header: ImageHeader) -> FrameRejectedError:
    return FrameRejectedError(
        "payload",
        f"The {header.kind} payload ({header.width_px}x{header.height_px}) cannot be decoded; it is damaged.",
    )


def _whole(value: Any, name: str, cause: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 0:
        raise FrameRejectedError(cause, f"The image {name} is {str(value)[:40]}; it must be a whole number above 0.")
    return int(value)


def _check_size(height_px: int, width_px: int) -> None:
    if not (0 < height_px <= MAX_SIDE_PX and 0 < width_px <= MAX_SIDE_PX and height_px * width_px <= MAX_PIXELS):
        raise FrameRejectedError(
            "size",
            f"The image is {width_px}x{height_px} pixels; both sides must be 1 to {MAX_SIDE_PX} and the product at "
            f"most {MAX_PIXELS}.",
        )


def _as_bytes(data: Any) -> np.ndarray:
    """The payload as uint8 [n], without a copy."""
    try:
        return np.frombuffer(data, dtype=np.uint8)
    except (TypeError, ValueError, BufferError) as err:
        # numpy refuses an empty buffer as well as an object that is none
        raise FrameRejectedError("payload", "The image payload is empty or not a contiguous block of bytes.") from err


def _target(out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise FrameRejectedError(
            "size",
            f"The image is {dtype} {list(shape)} but the buffer it should go into is {out.dtype} {list(out.shape)}; "
            "it must be of the same type and size, contiguous and writeable.",
        )
    return out


def _convert(pixels: np.ndarray, code: int, target: np.ndarray) -> np.ndarray:
    converted = cv2.cvtColor(pixels, code, dst=target)
    if converted is not target and not np.shares_memory(converted, target):
        np.copyto(target, converted)
    return target
