"""The coverage of a selection, compared with other selections of the same frames on the same grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.scene.greedy import covered_by, dense_ids, lazy_greedy
from spatial_mllm_ros.scene.voxels import coarsen


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """What one frame of the recording saw.

    Attributes:
        fine_keys: unique voxel keys int64 [n] on the finest grid of the scene.
        scene_from_cam: float64 [4, 4], camera-to-scene pose.
    """

    stamp_ns: int
    fine_keys: np.ndarray
    scene_from_cam: np.ndarray


@dataclass(frozen=True)
class CoverageFigures:
    """Voxels seen, all on one grid and over the same candidate frames.

    Attributes:
        candidates: number of frames to choose from: every frame that was placed in the scene.
        selected: voxels that the selection sees.
        uniform: voxels that as many frames at equal distances in the recording see.
        offline_greedy: voxels that as many frames see which the greedy method chooses from the whole recording.
        total: voxels that all candidates see together.
        voxel_size: edge length, metres unless ``unit`` is "relative".
        uniform_stamps_ns, offline_greedy_stamps_ns: the frames of these two selections, in time order.
    """

    candidates: int
    selected: int
    uniform: int
    offline_greedy: int
    total: int
    voxel_size: float
    unit: str
    uniform_stamps_ns: tuple[int, ...]
    offline_greedy_stamps_ns: tuple[int, ...]


def uniform_indices(frame_count: int, k: int) -> list[int]:
    """min(k, frame_count) indices at equal distances, first and last included (the middle one for k = 1)."""
    if k <= 1:
        return [(frame_count - 1) // 2][: min(k, frame_count)]
    return [int(i) for i in np.linspace(0, frame_count - 1, min(k, frame_count)).round()]


def coverage_figures(
    seen: Sequence[SeenFrame],
    selected_stamps_ns: Sequence[int],
    *,
    level: int,
    fine_voxel_size: float,
    unit: str,
) -> CoverageFigures:
    """Compares the selection with a uniform and with an offline greedy one of the same number of frames.

    Args:
        seen: every frame placed in the scene, in time order.
        selected_stamps_ns: stamps of the selected frames; a frame that is not among ``seen`` counts as seeing nothing.
        level: grid level; voxels are 2^level fine ones along each edge.
        fine_voxel_size: edge length of the finest voxels.
        unit: "m" or "relative".
    """
    index_of = {frame.stamp_ns: index for index, frame in enumerate(seen)}
    selected = [index_of[stamp] for stamp in selected_stamps_ns if stamp in index_of]
    voxels, total = dense_ids([coarsen(frame.fine_keys, level) for frame in seen])
    k = len(selected_stamps_ns)
    uniform = uniform_indices(len(seen), k)
    greedy, _ = lazy_greedy(voxels, total, k)
    return CoverageFigures(
        candidates=len(seen),
        selected=covered_by(voxels, total, selected),
        uniform=covered_by(voxels, total, uniform),
        offline_greedy=covered_by(voxels, total, greedy),
        total=total,
        voxel_size=fine_voxel_size * (1 << level),
        unit=unit,
        uniform_stamps_ns=_stamps(seen, uniform),
        offline_greedy_stamps_ns=_stamps(seen, greedy),
    )


@dataclass(frozen=True)
class CoverageSample:
    """Voxels seen up to one moment by the selection of that moment, by as many uniform frames, and by all frames."""

    stamp_ns: int
    selected: int
    uniform: int
    total: int


def coverage_over_time(
    seen: Sequence[SeenFrame], selections: Sequence[tuple[int, Sequence[int]]], *, level: int
) -> tuple[CoverageSample, ...]:
    """How coverage grew, on one grid.

    Args:
        seen: every frame placed in the scene, in time order.
        selections: moments (stamps of the newest frame) with the stamps that were selected then, in time order.
        level: of the grid, as in ``coverage_figures``.
    """
    voxels, count = dense_ids([coarsen(frame.fine_keys, level) for frame in seen])
    index_of = {frame.stamp_ns: index for index, frame in enumerate(seen)}
    covered = np.zeros(count, bool)
    so_far = 0
    samples = []
    for stamp_ns, stamps in selections:
        while so_far < len(seen) and seen[so_far].stamp_ns <= stamp_ns:
            covered[voxels[so_far]] = True
            so_far += 1
        chosen = [index_of[stamp] for stamp in stamps if stamp in index_of]
        uniform = uniform_indices(so_far, len(chosen)) if so_far and chosen else []
        samples.append(
            CoverageSample(
                stamp_ns,
                selected=covered_by(voxels, count, chosen),
                uniform=covered_by(voxels, count, uniform),
                total=int(np.count_nonzero(covered)),
            )
        )
    return tuple(samples)


def union_keys(seen: Sequence[SeenFrame], stamps_ns: Iterable[int] | None, level: int) -> np.ndarray:
    """Unique voxel keys int64 [n] on grid ``level``, ascending, that the frames of these stamps (None: all) see."""
    wanted = None if stamps_ns is None else set(stamps_ns)
    keys = [coarsen(frame.fine_keys, level) for frame in seen if wanted is None or frame.stamp_ns in wanted]
    return np.unique(np.concatenate(keys)) if keys else np.empty(0, np.int64)


def _stamps(seen: Sequence[SeenFrame], indices: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(seen[i].stamp_ns for i in indices))
