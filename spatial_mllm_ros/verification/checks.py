"""One row of `spatial_mllm verify-reference`: how far our value is from a reference value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Check:
    """The comparison of one quantity of one reference case.

    ``tolerance`` bounds ``rel_l2`` when ``criterion`` is "rel_l2", ``max_abs`` when it is "max_abs"; 0 means identical.
    """

    case: str
    quantity: str
    max_abs: float
    rel_l2: float
    criterion: str
    tolerance: float
    passed: bool


def compare(
    case: str, quantity: str, ours: object, reference: object, *, tolerance: float, criterion: str = "max_abs"
) -> Check:
    """Compares two arrays (or nested lists of numbers); different shapes or any NaN on one side only fails.

    Args:
        criterion: "max_abs" (largest absolute difference) or "rel_l2" (L2 of the difference over L2 of the reference).
    """
    a, b = np.asarray(ours), np.asarray(reference)
    if a.shape != b.shape or a.dtype.kind not in "biuf" or b.dtype.kind not in "biuf":
        return Check(case, quantity, float("inf"), float("inf"), criterion, tolerance, False)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    same_nan = np.array_equal(np.isnan(a64), np.isnan(b64))
    difference = np.where(np.isnan(b64) | (a64 == b64), 0.0, a64 - b64)
    norm = float(np.linalg.norm(np.nan_to_num(b64)))
    max_abs = float(np.abs(difference).max(initial=0.0))
    l2 = float(np.linalg.norm(difference))
    rel_l2 = l2 / norm if norm > 0 else (0.0 if l2 == 0 else float("inf"))
    error = {"max_abs": max_abs, "rel_l2": rel_l2}[criterion]
    return Check(case, quantity, max_abs, rel_l2, criterion, tolerance, bool(same_nan and error <= tolerance))
