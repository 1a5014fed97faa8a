"""Pinhole cameras, in OpenCV axes: x right, y down, z forward; pixel (0, 0) is the centre of the top-left pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion, for an image of ``width_px`` x ``height_px``."""

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        for name in ("fx_px", "fy_px", "width_px", "height_px"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ConfigurationError(f"Intrinsics.{name} is {value!r}; it must be finite and above 0.")
        for name in ("cx_px", "cy_px"):
            if not np.isfinite(getattr(self, name)):
                raise ConfigurationError(f"Intrinsics.{name} is {getattr(self, name)!r}; it must be finite.")

    def resized(self, width_px: int, height_px: int) -> Intrinsics:
        """The same camera for the image resized to that size (pixel centres kept: u' = (u + 0.5) s - 0.5)."""
        sx, sy = width_px / self.width_px, height_px / self.height_px
        return Intrinsics(
            fx_px=self.fx_px * sx,
            fy_px=self.fy_px * sy,
            cx_px=(self.cx_px + 0.5) * sx - 0.5,
            cy_px=(self.cy_px + 0.5) * sy - 0.5,
            width_px=width_px,
            height_px=height_px,
        )

    def for_image(self, width_px: int, height_px: int) -> Intrinsics:
        """The same camera for its image of that size.

        Raises:
            FrameRejectedError: cause ``intrinsics``; the image is of another field of view, see ``same_aspect``.
        """
        if (self.width_px, self.height_px) == (width_px, height_px):
            return self
        if not same_aspect((self.height_px, self.width_px), (height_px, width_px)):
            raise FrameRejectedError(
                "intrinsics",
                f"The intrinsics are for {self.width_px}x{self.height_px} but the image is {width_px}x{height_px}, "
                "which is not the same field of view; give the intrinsics of this camera mode.",
            )
        return self.resized(width_px, height_px)

    def matrix(self) -> np.ndarray:
        """K, float64 [3, 3], pixels."""
        return np.array([[self.fx_px, 0.0, self.cx_px], [0.0, self.fy_px, self.cy_px], [0.0, 0.0, 1.0]])

    def calibration(self) -> dict[str, Any]:
        """The fields of sensor_msgs/CameraInfo that describe this camera; header, binning and ROI are left out."""
        k = self.matrix()
        return {
            "height": self.height_px,
            "width": self.width_px,
            "distortion_model": "plumb_bob",
            "d": np.zeros(5),
            "k": k.reshape(9),
            "r": np.eye(3).reshape(9),
            "p": np.hstack([k, np.zeros((3, 1))]).reshape(12),
        }


def calibrated_camera(k: Sequence[float] | np.ndarray, *, width_px: int, height_px: int) -> Intrinsics:
    """The camera of a calibration as sensor_msgs/CameraInfo holds it: K row by row [9], and the size of the image.

    Raises:
        FrameRejectedError: cause ``camera_info``; K is zero or not finite (the camera is not calibrated), or the
            calibration has no image size.
    """
    fx_px, _, cx_px, _, fy_px, cy_px, *_ = values = np.asarray(k, dtype=np.float64).tolist()
    if not np.isfinite(values).all() or min(fx_px, fy_px, width_px, height_px) <= 0:
        raise FrameRejectedError(
            "camera_info",
            f"The camera_info has fx {fx_px} and fy {fy_px} for an image of {width_px}x{height_px}; calibrate the "
            "camera.",
        )
    return Intrinsics(fx_px, fy_px, cx_px, cy_px, width_px, height_px)


def same_aspect(shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> bool:
    """Whether two images [h, w, ...] can show the same field of view: width over height equal within 2 %."""
    return abs((shape_a[1] * shape_b[0]) / (shape_a[0] * shape_b[1]) - 1.0) <= 0.02
