"""Mean relative accuracy (arXiv 2412.14171, equation 1) in the two precisions in which it is published."""

from __future__ import annotations

import numpy as np

from spatial_mllm_ros.scoring.scorers.base import UnscorableError

# The official code asks linspace for int((.95 - .5) / .05 + 2) points; 8.999.. + 2 makes ten of them.
_CONFIDENCES = np.linspace(0.5, 0.95, 10)
# torch.arange counts in float64 and rounds each value to float32.
_CONFIDENCES_32 = (0.5 + 0.05 * np.arange(10)).astype(np.float32)


def as_float(text: str) -> float | None:
    """``float(text)``, None where Python reads no number; like the published code it takes "1_0" and "3e0"."""
    try:
        return float(text)
    except ValueError:
        return None


def official_mra(prediction: float, truth: float) -> float:
    """The share of the ten confidences t for which (|prediction - truth| / truth) <= 1 - t, in float64.

    As published: the error is divided by the truth and not by its absolute value.

    Raises:
        UnscorableError: the truth is 0, by which the published code divides.
    """
    if truth == 0:
        raise UnscorableError("The truth is 0, and the published scorer divides by it.", "ZeroDivisionError")
    return mra_of_error(abs(prediction - truth) / truth)


def mra_of_error(relative_error: float) -> float:
    """The share of the ten confidences t with ``relative_error`` <= 1 - t, in float64."""
    return float((relative_error <= 1 - _CONFIDENCES).mean())


def float32_mra(prediction: float, truth: float) -> float:
    """The Spatial-MLLM variant: float32, 1e-8 added to the truth, and a strict comparison."""
    with np.errstate(all="ignore"):
        p, t = np.float32(prediction), np.float32(truth)
        error = np.abs(p - t) / (np.abs(t) + np.float32(1e-8))
        right = error < np.float32(1) - _CONFIDENCES_32
    return float(np.float32(np.count_nonzero(right)) / np.float32(10))
