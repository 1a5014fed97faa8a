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
        below, up_to = row < low, row <= high
        if np.isfinite(row.min()) and np.isfinite(row.max()):
            finite, lowest = row.size, 0
        else:
            finite, lowest = int(np.count_nonzero(np.isfinite(row))), int(np.count_nonzero(row == -np.inf))
        count = int(np.count_nonzero(below)) - lowest
        if low == high:  # many equal values: counting them is enough
            return finite, count, np.empty(int(np.count_nonzero(up_to)) - count - lowest, np.bool_)
        return finite, count, row[np.flatnonzero(below ^ up_to)]

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
    # an odd count has one middle: the mean of it with itself could overflow
    middle = np.partition(values, (first, second))[first : second + 1]
    return np.float32(middle.mean(dtype=np.float32)), count == rows.size
