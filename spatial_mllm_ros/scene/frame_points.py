"""From an encoder's point maps to the points that may enter the coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spatial_mllm_ros.encoders.base import FrameGeometry
from spatial_mllm_ros.scene.coverage import CELLS_PER_SIDE, smallest_side

_NEAR_QUANTILE = 0.95
_FAR_FACTOR = 3.0  # points farther from the camera than this times the near quantile of their frame are outliers
_ROBUST_SHARE = 0.01
_FINE_PER_CELL = 8  # fine voxels per side of a voxel that is 1/20 of the first window: three levels to either side


def window_points(geometries: Sequence[FrameGeometry], percentile: float, max_points: int) -> list[np.ndarray]:
    """Per frame of a window the points to use, float32 [n, 3], scene frame.

    Three kinds of points are left out: those that are not finite; those whose confidence is 0, not finite, or below
    ``percentile`` of the window's positive confidences; those several times as far from the camera as nearly all others
    of their frame. Maps of more than ``max_points`` points are thinned regularly in both directions.
    """
    thinned = []
    for geometry in geometries:
        step = math.ceil(math.sqrt(geometry.confidence.size / max_points))
        points = geometry.points_scene[::step, ::step].reshape(-1, 3)
        confidence = geometry.confidence[::step, ::step].reshape(-1)
        usable = (confidence > 0) & np.isfinite(confidence) & np.isfinite(points).all(axis=1)
        thinned.append((points[usable], confidence[usable], geometry.scene_from_cam[:3, 3]))
    confidences = np.concatenate([c for _, c, _ in thinned])
    if len(confidences) == 0:
        return [points for points, _, _ in thinned]
    threshold = np.percentile(confidences, percentile)
    return [_without_far(points[confidence >= threshold], centre) for points, confidence, centre in thinned]


def relative_voxel_size(points: np.ndarray) -> float:
    """A fine voxel for a scene without metric scale, from the points of its first window, float32 [n, 3], n > 0.

    Its edge is 1/8 of 1/20 of the smallest side of the middle 98 % of the points; flat sides do not count.
    """
    low, high = np.quantile(points, [_ROBUST_SHARE, 1 - _ROBUST_SHARE], axis=0)
    side = smallest_side(high - low)
    return side / (CELLS_PER_SIDE * _FINE_PER_CELL) if side > 0 else 1.0  # all points in one place: any size will do


def _without_far(points: np.ndarray, camera_centre: np.ndarray) -> np.ndarray:
    if len(points) == 0:
        return points
    away = points - camera_centre.astype(np.float32)
    squared = np.einsum("ij,ij->i", away, away)
    limit = _FAR_FACTOR**2 * np.quantile(squared, _NEAR_QUANTILE)
    return points[squared <= limit]
