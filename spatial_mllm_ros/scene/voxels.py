"""Voxels as packed integers: one int64 per voxel, coarser grids by a shift.

A cell (x, y, z) of the fine grid is floor(point / voxel_size). Each coordinate is stored with an offset of 2^20 in 21
bits, x highest, so keys are never negative, sort like (x, y, z), and the offset makes a right shift of all three fields
the arithmetically right floor division by two, also for negative cells.
"""

from __future__ import annotations

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError

FIELD_BITS = 21
MAX_LEVEL = 16
_OFFSET = 1 << (FIELD_BITS - 1)
_FIELD_MASK = (1 << FIELD_BITS) - 1
_BITMAP_CELLS = 1 << 22  # below this, marking cells of a bitmap is faster than sorting keys


def pack_cells(cells: np.ndarray) -> np.ndarray:
    """Cells int [n, 3], each coordinate in [-2^20, 2^20), as keys int64 [n]."""
    shifted = cells.astype(np.int64) + _OFFSET
    return (shifted[:, 0] << (2 * FIELD_BITS)) | (shifted[:, 1] << FIELD_BITS) | shifted[:, 2]


def unpack_cells(keys: np.ndarray, level: int = 0) -> np.ndarray:
    """Cells int64 [n, 3] of keys int64 [n] that belong to grid level ``level``."""
    fields = np.stack([keys >> (2 * FIELD_BITS), (keys >> FIELD_BITS) & _FIELD_MASK, keys & _FIELD_MASK], axis=-1)
    return fields - (_OFFSET >> level)


def coarsen(fine_keys: np.ndarray, level: int) -> np.ndarray:
    """Unique keys, ascending, of the grid whose voxels are 2^level times as large; ``fine_keys`` are of level 0.

    Raises:
        ConfigurationError: the level is not in [0, MAX_LEVEL].
    """
    return fine_keys if level == 0 else np.unique(coarse_keys(fine_keys, level))


def coarse_keys(fine_keys: np.ndarray, level: int) -> np.ndarray:
    """For each of ``fine_keys`` (int64 [n], level 0) the key of the voxel of grid level ``level`` that it lies in.

    Raises:
        ConfigurationError: the level is not in [0, MAX_LEVEL].
    """
    if not 0 <= level <= MAX_LEVEL:
        raise ConfigurationError(f"The grid level is {level}; it must be 0 to {MAX_LEVEL}.")
    field = _FIELD_MASK >> level
    mask = (field << (2 * FIELD_BITS)) | (field << FIELD_BITS) | field
    return (fine_keys >> level) & mask


def voxel_keys(points_scene: np.ndarray, voxel_size: float) -> np.ndarray:
    """Unique keys int64, ascending, of the voxels that hold at least one point.

    Args:
        points_scene: float [n, 3], scene frame, unit of ``voxel_size``. Points that are not finite, or more than 2^20
            voxels from the origin along an axis, are left out.
        voxel_size: edge length of a fine voxel, > 0.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        cells = np.floor(points_scene * np.float32(1.0 / voxel_size))
        low, high = _bounds(cells)
        if not ((low > -_OFFSET) & (high < _OFFSET)).all():  # NaN and inf spread to the bounds
            cells = cells[(np.abs(cells) < _OFFSET).all(axis=1)]
            low, high = _bounds(cells)
    if len(cells) == 0:
        return np.empty(0, np.int64)
    shape = (high - low).astype(np.int64) + 1
    if int(shape.prod()) > _BITMAP_CELLS:
        return np.unique(pack_cells(cells))
    seen = np.zeros(int(shape.prod()), bool)
    seen[((cells - low) @ np.array([shape[1] * shape[2], shape[2], 1], np.float32)).astype(np.intp)] = True
    found = np.stack(np.unravel_index(np.flatnonzero(seen), tuple(shape)), axis=-1)
    return pack_cells(found + low.astype(np.int64))


def _bounds(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates of [n, 3]; by columns, which numpy does several times faster than by rows."""
    if len(cells) == 0:
        return np.zeros(3, np.float32), np.zeros(3, np.float32)
    columns = [np.ascontiguousarray(cells[:, axis]) for axis in range(3)]
    return np.array([c.min() for c in columns]), np.array([c.max() for c in columns])


def voxel_keys_at(points_scene: np.ndarray, voxel_size: float, level: int) -> np.ndarray:
    """``coarsen(voxel_keys(points_scene, voxel_size), level)`` but for rounding at the faces, without the fine grid.

    Points more than 2^20 / 2^level coarse voxels from the origin must not be among them.
    """
    shift = _OFFSET - (_OFFSET >> level)
    return voxel_keys(points_scene, voxel_size * (1 << level)) - (
        (shift << 2 * FIELD_BITS) | shift << FIELD_BITS | shift
    )


def voxel_centres(keys: np.ndarray, voxel_size: float, level: int = 0) -> np.ndarray:
    """Centres float32 [n, 3] of voxels of grid level ``level``; ``voxel_size`` is the edge length at level 0."""
    edge = voxel_size * (1 << level)
    return ((unpack_cells(keys, level) + 0.5) * edge).astype(np.float32)
