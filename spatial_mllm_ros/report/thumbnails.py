"""Small JPEGs for pages, which hold their pictures as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from spatial_mllm_ros.errors import SourceError

WIDTH_PX = 144
_STRIP_HEIGHT_PX = 60
_QUALITY = 62


def thumbnail_jpeg(rgb: np.ndarray, *, width_px: int = WIDTH_PX) -> bytes:
    """An image uint8 [H, W, 3] RGB as a JPEG of width ``width_px``, with its aspect kept."""
    height, width = rgb.shape[:2]
    return _jpeg(cv2.resize(rgb, (width_px, max(1, round(height * width_px / width))), interpolation=cv2.INTER_AREA))


def strip_jpeg(images: Sequence[np.ndarray]) -> bytes:
    """At least one frame uint8 [H, W, 3] RGB, side by side in one JPEG of 60 px height."""
    parts = []
    for rgb in images:
        height, width = rgb.shape[:2]
        size = (max(1, round(width * _STRIP_HEIGHT_PX / height)), _STRIP_HEIGHT_PX)
        parts.append(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    return _jpeg(np.hstack(parts))


def data_uri(jpeg: bytes) -> str:
    """The JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _jpeg(rgb: np.ndarray) -> bytes:
    good, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not good:
        raise SourceError(f"An image of {rgb.shape[1]}x{rgb.shape[0]} px cannot be written as JPEG.")
    return data.tobytes()
