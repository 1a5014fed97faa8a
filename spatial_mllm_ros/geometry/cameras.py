"""Pinhole cameras, in OpenCV axes: x right, y down, z forward; pixel (0, 0) is the centre of the top-left pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError


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

    def matrix(self) -> np.ndarray:
        """K, float64 [3, 3], pixels."""
        return np.array([[self.fx_px, 0.0, self.cx_px], [0.0, self.fy_px, self.cy_px], [0.0, 0.0, 1.0]])
