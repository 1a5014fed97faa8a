"""Names of directions and turns on the floor plan (x, y of the scene frame, seen from above)."""

from __future__ import annotations

import math

import numpy as np


def turn_angle_deg(at: np.ndarray, facing: np.ndarray, to: np.ndarray) -> float:
    """The angle by which somebody at ``at`` who faces ``facing`` must turn to face ``to``: -180..180, left positive.

    All float64 [2], metres.
    """
    ahead, wanted = facing - at, to - at
    cross = ahead[0] * wanted[1] - ahead[1] * wanted[0]
    return math.degrees(math.atan2(cross, float(ahead @ wanted)))


def side_of(angle_deg: float) -> str:
    """The name of a direction in easy questions: ``left`` or ``right``."""
    return "left" if angle_deg > 0 else "right"


def side_or_back(angle_deg: float) -> str:
    """The name in medium questions: ``back`` for a turn of at least 135 degrees, otherwise the side."""
    return "back" if abs(angle_deg) >= 135.0 else side_of(angle_deg)


def quadrant(angle_deg: float) -> str:
    """The name in hard questions: the quadrant of a plane whose positive y axis is the facing direction."""
    return f"{'front' if abs(angle_deg) < 90.0 else 'back'}-{side_of(angle_deg)}"
