"""Directions, turns and free straight ways on the floor plan (x, y of the scene frame, seen from above)."""

from __future__ import annotations

import math

import numpy as np


def turn_angle_deg(at: np.ndarray, facing: np.ndarray, to: np.ndarray) -> float:
    """By how much somebody at ``at`` who faces ``facing`` must turn to face ``to``: -180..180, left positive.

    All float64 [2], metres.
    """
    ahead, wanted = facing - at, to - at
    cross = ahead[0] * wanted[1] - ahead[1] * wanted[0]
    return math.degrees(math.atan2(cross, float(ahead @ wanted)))


def side_of(angle_deg: float) -> str:
    """Easy: ``left`` or ``right``."""
    return "left" if angle_deg > 0 else "right"


def side_or_back(angle_deg: float) -> str:
    """Medium: ``back`` from a turn of 135 degrees on, otherwise the side."""
    return "back" if abs(angle_deg) >= 135.0 else side_of(angle_deg)


def quadrant(angle_deg: float) -> str:
    """Hard: the quadrant of a plane whose positive y axis is the facing direction."""
    return f"{'front' if abs(angle_deg) < 90.0 else 'back'}-{side_of(angle_deg)}"


def segment_hits_rectangle(start: np.ndarray, end: np.ndarray, corners: np.ndarray, margin_m: float) -> bool:
    """Whether a segment comes into a rectangle (float64 [4, 2], any turn) grown by ``margin_m``.

    Slabs along the rectangle's own axes (Kay and Kajiya 1986).
    """
    centre = corners.mean(0)
    low, high = 0.0, 1.0
    for edge in (corners[1] - corners[0], corners[3] - corners[0]):
        length = float(np.hypot(*edge))
        axis, half = edge / length, length / 2 + margin_m
        at, step = float((start - centre) @ axis), float((end - start) @ axis)
        if abs(step) < 1e-12:
            if abs(at) > half:
                return False
            continue
        one, two = (-half - at) / step, (half - at) / step
        low, high = max(low, min(one, two)), min(high, max(one, two))
    return low <= high


def segment_inside_polygon(start: np.ndarray, end: np.ndarray, polygon: np.ndarray) -> bool:
    """Whether no edge of a polygon float64 [K, 2] crosses the segment; its ends are known to be inside."""
    a, b = polygon, np.roll(polygon, -1, axis=0)

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    crosses = (side(start, end, a) * side(start, end, b) < 0) & (side(a, b, start) * side(a, b, end) < 0)
    return not bool(crosses.any())
