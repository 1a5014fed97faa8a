"""Upright oriented boxes: turned about the vertical only, as furniture is. Scene frame, z up, metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class OrientedBox:
    """A box with ``centre_m`` float64 [3], full edge lengths ``size_m`` float64 [3], turned by ``yaw_rad`` about z.

    Raises:
        ConfigurationError: a shape is wrong, a value is not finite, or a length is not above 0.
    """

    centre_m: np.ndarray
    size_m: np.ndarray
    yaw_rad: float

    def __post_init__(self) -> None:
        for name in ("centre_m", "size_m"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape != (3,) or not np.isfinite(value).all():
                raise ConfigurationError(f"OrientedBox.{name} is {value.tolist()}; it must be three finite numbers.")
            object.__setattr__(self, name, value)
        if not (self.size_m > 0).all():
            raise ConfigurationError(f"OrientedBox.size_m is {self.size_m.tolist()}; every length must be above 0.")
        if not np.isfinite(self.yaw_rad):
            raise ConfigurationError(f"OrientedBox.yaw_rad is {self.yaw_rad}; it must be finite.")

    def footprint(self) -> np.ndarray:
        """Corners on the floor plan, counter-clockwise: float64 [4, 2]."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        signs = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * self.size_m[:2]
        return signs @ np.array([[cos, sin], [-sin, cos]]) + self.centre_m[:2]

    def corners(self) -> np.ndarray:
        """All corners, float64 [8, 3]: the footprint at the bottom, then at the top."""
        floor = self.footprint()
        half = self.size_m[2] / 2
        return np.concatenate([np.column_stack([floor, np.full(4, self.centre_m[2] + side)]) for side in (-half, half)])

    def contains(self, points: np.ndarray, margin_m: float = 0.0) -> np.ndarray:
        """Which of float64 [N, 3] points lie in the box grown by ``margin_m``: bool [N]."""
        away = points - self.centre_m
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        own = np.stack([cos * away[:, 0] + sin * away[:, 1], cos * away[:, 1] - sin * away[:, 0], away[:, 2]], axis=-1)
        return (np.abs(own) <= self.size_m / 2 + margin_m).all(-1)


def pairwise_distances_m(boxes: Sequence[OrientedBox]) -> np.ndarray:
    """Distances between the closest points of every two boxes, float64 [N, N]; 0 where they touch or overlap.

    Exact: an upright box is its footprint times an interval of heights, so the distance is the hypotenuse of the
    distance of the footprints and the gap of the intervals. The footprints' distance is the least one between a corner
    of one and an edge of the other, or 0 where no edge of either separates them.
    """
    if not boxes:
        return np.zeros((0, 0))
    floor = np.stack([box.footprint() for box in boxes])
    low = np.array([box.centre_m[2] - box.size_m[2] / 2 for box in boxes])
    high = np.array([box.centre_m[2] + box.size_m[2] / 2 for box in boxes])
    gap = np.maximum(np.maximum(low[:, None] - high[None, :], low[None, :] - high[:, None]), 0.0)
    return np.hypot(_footprint_distances(floor), gap)


def _footprint_distances(floor: np.ndarray) -> np.ndarray:
    """Distances between convex quadrilaterals float64 [N, 4, 2]: [N, N]."""
    edge = np.roll(floor, -1, axis=1) - floor
    length2 = (edge**2).sum(-1)
    # [N, M, edge of N, corner of M, 2]
    away = floor[None, :, None, :, :] - floor[:, None, :, None, :]
    along = np.clip((away * edge[:, None, :, None, :]).sum(-1) / length2[:, None, :, None], 0.0, 1.0)
    rest = away - along[..., None] * edge[:, None, :, None, :]
    to_corners = np.sqrt((rest**2).sum(-1).min((2, 3)))
    # An edge with every corner of the other on its outer (right) side separates the two.
    side = edge[:, None, :, None, 0] * away[..., 1] - edge[:, None, :, None, 1] * away[..., 0]
    separated = (side < 0).all(-1).any(-1)
    return np.where(separated | separated.T, np.minimum(to_corners, to_corners.T), 0.0)
