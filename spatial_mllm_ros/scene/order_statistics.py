"""The exact median of many numbers in two passes and little memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_SAMPLE = 1 << 16
_MARGIN = 0.01  # of the rank; the sampling error of a rank is a fifth of this for a sample of 2^16


def median_of_finite(rows: np.ndarray, over: Callable[..., list]) -> tuple[np.float32, bool]:
    """Median of the finite values of float32 [R, N], the mean of the middle two for an even number.

    A sample gives a bracket that holds the middle ranks almost surely; one pass counts what lies below it and collects
    what lies in it. Where the bracket misses, everything is sorted, so the result is always exact.

    Args:
        over: ``over(function)`` gives [function(0), ..., function(R - 1)], possibly with several threads.

    Returns:
        the median (0 when there is no finite value), and whether all values were finite.
    """
    sample = rows.reshape(-1)[:: max(1, rows.size // _SAMPLE)]
    sample = np.sort(sample[np.isfinite(sample)])
    low = high = np.float32(0)
    if len(sample):
        low = sample[int((0.5 - _MARGIN) * (len(sample) - 1))]
        high = sample[int(np.ceil((0.5 + _MARGIN) * (len(sample) - 1)))]

    def split(index: int) -> tuple[int, int, np.ndarray]:
        row = rows[index]
        finite = int(np.count_nonzero(np.isfinite(row)))
        below = int(np.count_nonzero(row < low)) - (int(np.count_nonzero(row == -np.inf)) if finite < row.size else 0)
        if low == high:  # many equal values: counting them is enough
            return finite, below, np.empty(int(np.count_nonzero(row == low)), np.bool_)
        return finite, below, row[np.flatnonzero((row >= low) & (row <= high))]

    parts = over(split)
    count = sum(p[0] for p in parts)
    if count == 0:
        return np.float32(0), rows.size == 0
    below = sum(p[1] for p in parts)
    inside = sum(len(p[2]) for p in parts)
    first, second = (count - 1) // 2 - below, count // 2 - below
    if first < 0 or second >= inside:
        values = rows[np.isfinite(rows)]
        first, second = (count - 1) // 2, count // 2
    elif low == high:
        return np.float32(low), count == rows.size
    else:
        values = np.concatenate([p[2] for p in parts])
    middle = np.partition(values, (first, second))[[first, second]]
    return np.float32(middle.mean(dtype=np.float32)), count == rows.size
