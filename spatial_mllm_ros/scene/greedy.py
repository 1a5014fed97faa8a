"""Maximum coverage by the lazy greedy method, and what to add when nothing new is left to cover."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import numpy as np


def lazy_greedy(
    voxels: Sequence[np.ndarray],
    voxel_count: int,
    k: int,
    *,
    chosen: Sequence[int] = (),
    weights: Sequence[float] | None = None,
) -> tuple[list[int], list[int]]:
    """Picks up to ``k`` more sets, each the one that adds the most uncovered voxels; stops when none adds any.

    With ``weights`` each pick is the set whose number of new voxels times its weight is largest.

    Ties go to the lowest index. A set's gain can only fall as others are picked, so an old gain is an upper bound and
    most gains need no second look (Minoux, Accelerated greedy algorithms, 1978); the picks are those of the plain
    greedy method, whose coverage is at least 1 - 1/e of the optimum (Nemhauser et al., 1978).

    Args:
        voxels: per set the voxels it covers, int [n_i], unique, each in [0, voxel_count).
        chosen: sets already taken; what they cover counts as covered.
        weights: per set, above 0; None: all 1, which is the published method.

    Returns:
        the picked indices and their gains (voxels, not weighted), in the order of picking.
    """
    covered = np.zeros(voxel_count, bool)
    for index in chosen:
        covered[voxels[index]] = True
    taken = set(chosen)
    weight = [1.0] * len(voxels) if weights is None else [float(w) for w in weights]
    bounds = [(-len(ids) * weight[i], i) for i, ids in enumerate(voxels) if i not in taken and len(ids)]
    heapq.heapify(bounds)
    picks: list[int] = []
    gains: list[int] = []
    while bounds and len(picks) < k:
        bound, index = bounds[0]
        gain = len(voxels[index]) - int(np.count_nonzero(covered[voxels[index]]))
        if gain == 0:
            heapq.heappop(bounds)
        elif gain * weight[index] < -bound:
            heapq.heapreplace(bounds, (-gain * weight[index], index))
        else:
            heapq.heappop(bounds)
            covered[voxels[index]] = True
            picks.append(index)
            gains.append(gain)
    return picks, gains


def farthest_in_time(stamps_ns: Sequence[int], chosen: Sequence[int], candidates: Sequence[int], k: int) -> list[int]:
    """Up to ``k`` of ``candidates``, each the one farthest in time from everything chosen so far; ties to the lowest.

    Args:
        stamps_ns: time of every frame, by index; only differences matter.
        chosen: indices already taken; when empty, the first pick is the earliest candidate.
    """
    left = list(candidates)
    picks: list[int] = []
    times = np.array([stamps_ns[i] for i in left], np.int64)
    distance = np.full(len(left), np.iinfo(np.int64).max)
    for index in chosen:
        distance = np.minimum(distance, np.abs(times - stamps_ns[index]))
    while len(picks) < min(k, len(candidates)):
        best = int(np.argmax(distance))
        picks.append(left[best])
        distance = np.minimum(distance, np.abs(times - times[best]))
        distance[best] = -1
    return picks


def dense_ids(keys: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Numbers the distinct keys of all sets 0, 1, ...: per set its numbers, and how many there are."""
    if not keys:
        return [], 0
    distinct, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    ends = np.cumsum([len(part) for part in keys])
    return np.split(inverse, ends[:-1]), len(distinct)


def covered_by(voxels: Sequence[np.ndarray], voxel_count: int, chosen: Iterable[int]) -> int:
    """How many voxels the sets ``chosen`` cover together."""
    covered = np.zeros(voxel_count, bool)
    for index in chosen:
        covered[voxels[index]] = True
    return int(np.count_nonzero(covered))


def fill_up(
    finer: Sequence[np.ndarray], voxel_count: int, chosen: Sequence[int], stamps_ns: Sequence[int], k: int
) -> list[int]:
    """Frames that bring ``chosen`` up to min(k, T): by gain on a finer grid, then by distance in time.

    Args:
        finer: per frame its voxels on the finer grid, int [n_i], each in [0, voxel_count).
        stamps_ns: time of each frame.

    Frames that see no voxel come after all others.
    """
    fill, _ = lazy_greedy(finer, voxel_count, k - len(chosen), chosen=chosen)
    for seeing in (True, False):
        taken = set(chosen) | set(fill)
        candidates = [i for i in range(len(finer)) if i not in taken and (len(finer[i]) > 0) == seeing]
        fill += farthest_in_time(stamps_ns, [*chosen, *fill], candidates, k - len(chosen) - len(fill))
    return fill


def largest_gains(gains: Sequence[int], count: int) -> list[int]:
    """Indices, ascending, of the ``count`` frames that show most together.

    Args:
        gains: what each frame added when the greedy selection picked it. Greedy gains fall from pick to pick, so the
            ``count`` largest are the greedy selection of that size; where all are 0, the frames are spread evenly.
    """
    if count >= len(gains):
        return list(range(len(gains)))
    if not any(gains):
        return [round((index + 0.5) * len(gains) / count - 0.5) for index in range(count)]
    return sorted(sorted(range(len(gains)), key=lambda index: (-gains[index], index))[:count])
