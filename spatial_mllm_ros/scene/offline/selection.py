"""Space-aware frame sampling of a finished clip, with K useful frames also where the official algorithm gives fewer.

Spatial-MLLM (arXiv 2505.23747), section 3.3: confident points -> voxels -> greedy maximum coverage. The official result
is reproduced to the last index. These cases are treated in addition:

- points and confidences that are not finite are left out;
- points far outside the scene are left out where they would coarsen the grid;
- a flat scene takes its grid from the sides that are not flat;
- when no confidence passes the absolute floor, the median alone decides;
- when nothing new is left to cover, the selection is filled up to K: first with the frames that add most on a finer
  grid, then with the ones farthest in time from those chosen; frames without any usable point come last.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scene.greedy import covered_by, dense_ids, fill_up, lazy_greedy
from spatial_mllm_ros.scene.offline.order_statistics import median_of_finite
from spatial_mllm_ros.scene.offline.usable_points import Box, Extent, UsablePoints, united
from spatial_mllm_ros.scene.voxels import pack_cells

CELLS_PER_SIDE = 20  #: the grid has this many voxels along the smallest side of the scene
CONFIDENCE_FLOOR = np.float32(0.1)
_FLAT_SIDE = np.float32(1e-3)  # a side below this share of the largest one is flat
_MAX_COARSENING = np.float32(1.25)  # far points that make voxels larger than by this factor are left out
_FILL_DIVISOR = 4  # the finer grid on which frames are compared when the first one is exhausted
_EXACT_FLOAT32 = 1 << 24  # cell numbers below this are exact in float32
_OUTLIER_SAMPLE = 1 << 16
_MAX_WORKERS = 8

_R = TypeVar("_R")


@dataclass(frozen=True)
class OfflineSelection:
    """The frames chosen from a clip.

    Attributes:
        indices: all chosen frames in time order, min(K, T) of them.
        greedy_order: those among them that add voxels, in the order of picking.
        gains: voxels that each of ``greedy_order`` adds.
        fill_order: the rest of ``indices``, in the order of adding.
        covered_voxels, total_voxels: seen by the chosen frames together, by all frames together.
        voxels_per_frame: voxels that each frame of the clip sees.
        voxel_size: edge length, unit of the points.
        confidence_threshold: points below it were left out.
        bbox_min, bbox_max: corners of the box around the points used, or None when there are none.
        valid_points: points used.
    """

    indices: tuple[int, ...]
    greedy_order: tuple[int, ...]
    gains: tuple[int, ...]
    fill_order: tuple[int, ...]
    covered_voxels: int
    total_voxels: int
    voxels_per_frame: tuple[int, ...]
    voxel_size: float
    confidence_threshold: float
    bbox_min: tuple[float, float, float] | None
    bbox_max: tuple[float, float, float] | None
    valid_points: int


def select_offline(points: np.ndarray, confidence: np.ndarray, k: int) -> OfflineSelection:
    """Chooses min(k, T) of T frames that together show the most of the scene.

    Args:
        points: float32 [T, H, W, 3], all in one frame of reference, any unit.
        confidence: float32 [T, H, W]; comparable across the frames.
        k: how many frames, >= 1.

    Raises:
        ConfigurationError: shapes that do not fit together, no frames, or k < 1.
    """
    if points.ndim != 4 or points.shape[3] != 3 or confidence.shape != points.shape[:3] or 0 in points.shape:
        raise ConfigurationError(
            f"points must be [T, H, W, 3] and confidence [T, H, W], none of them empty; got {list(points.shape)} and "
            f"{list(confidence.shape)}."
        )
    if k < 1:
        raise ConfigurationError(f"k is {k}; at least one frame must be chosen.")
    frames = len(points)
    flat = np.ascontiguousarray(points, np.float32).reshape(frames, -1, 3)
    conf = np.ascontiguousarray(confidence, np.float32).reshape(frames, -1)
    with ThreadPoolExecutor(min(_MAX_WORKERS, os.cpu_count() or 1)) as pool:

        def over(function: Callable[[int], _R]) -> list[_R]:
            return list(pool.map(function, range(frames)))

        threshold, all_finite = median_of_finite(conf, over)
        usable = UsablePoints(flat, conf, threshold, CONFIDENCE_FLOOR, all_finite)
        stride = -(-conf.size // _OUTLIER_SAMPLE)
        extents = over(lambda t: usable.extent(t, stride))
        if not any(e.count for e in extents):
            usable = replace(usable, floor=np.float32(0))
            extents = over(lambda t: usable.extent(t, stride))
        usable = replace(usable, points_finite=all(e.finite for e in extents))
        box = united(extents)
        fence = None if box is None else _fence_against_far_points(extents, box)
        if box is not None and fence is not None:
            nearer = replace(usable, fence=fence)
            near_extents = over(lambda t: nearer.extent(t, stride))
            near_box = united(near_extents)
            if near_box is not None and _voxel_size(box) > _MAX_COARSENING * _voxel_size(near_box):
                usable, extents, box = nearer, near_extents, near_box
        if box is None:
            voxel_size, voxels, voxel_count = np.float32(1), [np.empty(0, np.int64)] * frames, 0
        else:
            voxel_size = _voxel_size(box)
            voxels, voxel_count = _voxelise(usable, box, voxel_size, over)
        order, gains = lazy_greedy(voxels, voxel_count, k)
        fill: list[int] = []
        if len(order) < min(k, frames):
            finer, finer_count = voxels, voxel_count
            if box is not None:
                finer, finer_count = _voxelise(usable, box, voxel_size / np.float32(_FILL_DIVISOR), over)
            fill = fill_up(finer, finer_count, order, range(frames), k)
    return OfflineSelection(
        indices=tuple(sorted(order + fill)),
        greedy_order=tuple(order),
        gains=tuple(gains),
        fill_order=tuple(fill),
        covered_voxels=sum(gains),
        total_voxels=covered_by(voxels, voxel_count, range(frames)),
        voxels_per_frame=tuple(len(ids) for ids in voxels),
        voxel_size=float(voxel_size),
        confidence_threshold=float(threshold),
        bbox_min=None if box is None else _triple(box.low),
        bbox_max=None if box is None else _triple(box.high),
        valid_points=sum(e.count for e in extents),
    )


def _voxel_size(box: Box) -> np.float32:
    sides = box.sides
    largest = sides.max()
    if not largest > 0:
        return np.float32(1)  # one point: any size gives one voxel
    return np.float32(sides[sides >= _FLAT_SIDE * largest].min() / np.float32(CELLS_PER_SIDE))


def _fence_against_far_points(extents: list[Extent], box: Box) -> Box | None:
    """The box of the middle 98 % of the points, grown on all sides by its largest side; None when all lie in it."""
    sample = np.concatenate([e.sample for e in extents])
    if len(sample) == 0:
        return None
    low, high = np.quantile(sample, [0.01, 0.99], axis=0).astype(np.float32)
    margin = (high - low).max()
    fence = Box(low - margin, high + margin)
    if margin == 0 or ((box.low >= fence.low) & (box.high <= fence.high)).all():
        return None
    return fence


def _voxelise(
    usable: UsablePoints, box: Box, voxel_size: np.float32, over: Callable[..., list[np.ndarray]]
) -> tuple[list[np.ndarray], int]:
    """Per frame the numbers of the voxels that hold its points, and the bound of these numbers.

    Cells are floor((point - low) / size) in float32, as in the official code; another rounding moves border points.
    """
    shape = np.floor(box.sides / voxel_size).astype(np.int64) + 1
    cells = int(shape.prod(dtype=object))
    # tiled to the length of a frame, so that the subtraction runs over one flat array
    lows = np.tile(box.low, usable.points.shape[1])

    def cells_of(t: int) -> np.ndarray:
        flat = usable.of_frame(t).reshape(-1)
        np.subtract(flat, lows[: flat.size], out=flat)
        np.divide(flat, voxel_size, out=flat)
        return np.floor(flat, out=flat).reshape(-1, 3)

    if cells >= _EXACT_FLOAT32:
        return dense_ids(over(lambda t: np.unique(pack_cells(cells_of(t)))))
    strides = np.array([[shape[1] * shape[2], shape[2], 1]], np.float64)

    def seen(t: int) -> np.ndarray:
        marks = np.zeros(cells, bool)
        occupied = cells_of(t)
        if len(occupied):  # a product with a 1x3 matrix per point; numpy's is several times slower
            marks[cv2.transform(occupied.reshape(-1, 1, 3), strides).ravel().astype(np.intp)] = True
        return np.flatnonzero(marks)

    return over(seen), cells


def _triple(vector: np.ndarray) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])
