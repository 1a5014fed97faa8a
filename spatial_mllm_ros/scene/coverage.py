"""Which frame sees which voxels, on a grid that follows the extent of the scene."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from spatial_mllm_ros.scene.records import GridState, PlacedFrame
from spatial_mllm_ros.scene.sole_voxels import SoleVoxels
from spatial_mllm_ros.scene.voxel_counts import VoxelCounts
from spatial_mllm_ros.scene.voxels import MAX_LEVEL, coarse_keys, coarsen, unpack_cells

CELLS_PER_SIDE = 20  #: voxels along the smallest side of the scene that the grid aims at, as in the official sampler
_ROBUST_SHARE = 0.01  # of the occupied voxels, left out at either end of an axis when the extent is measured
_FLAT_SHARE = 0.03  # of the second largest side: a long corridor must not make its own height look flat
_MEASURE_EVERY = 8
_HYSTERESIS_LEVELS = 0.75  # how far the wanted level must be from the present one; 0.5 would be plain rounding


class CoverageIndex:
    """Voxels per frame and frames per voxel, for the frames held now.

    The index keeps the fine keys of each frame, and the slots of its voxels (present level) in the shared table of
    counts. Adding or removing a frame costs time for its own voxels; changing the level, for those of all frames held.

    Args:
        voxel_size: edge length at level 0, unit of the scene.
    """

    def __init__(self, voxel_size: float) -> None:
        self.voxel_size_fine = voxel_size
        self._level = 0
        self._fine: dict[int, np.ndarray] = {}
        self._slots: dict[int, np.ndarray] = {}
        self._counts = VoxelCounts()
        self._generation = self._counts.generation
        self._kept = SoleVoxels(self._counts.slot_count)
        self._doubted: np.ndarray = np.empty(0, np.int32)  # slots, ascending, that frames have seen through
        self._sightings: np.ndarray = np.empty(0, np.int32)  # how many frames
        self._contradicted: dict[int, int] = {}  # by frame, how many of its voxels were cleared
        self._adds_since_measured = 0

    def __contains__(self, frame_id: int) -> bool:
        return frame_id in self._fine

    @classmethod
    def restored(cls, grid: GridState, placed: Iterable[PlacedFrame]) -> CoverageIndex:
        """The index as it was when ``state`` gave ``grid``, with these frames in it; doubts begin again."""
        index = cls(grid.voxel_size)
        index._level = grid.level
        for frame in placed:
            index.add(frame.stamp_ns, frame.fine_keys)
            if frame.is_keyframe:
                index.keep(frame.stamp_ns)
            if frame.contradicted_voxels:
                index._contradicted[frame.stamp_ns] = frame.contradicted_voxels
        index._adds_since_measured = grid.frames_since_measured
        return index

    @property
    def state(self) -> GridState:
        """The grid, for ``restored``."""
        return GridState(self.voxel_size_fine, self._level, self._adds_since_measured)

    @property
    def level(self) -> int:
        """The present grid's voxels are 2^level fine voxels long."""
        return self._level

    @property
    def voxel_size(self) -> float:
        """Edge length of the present grid's voxels."""
        return self.voxel_size_fine * (1 << self._level)

    @property
    def total_voxels(self) -> int:
        """Voxels seen by at least one frame, at the present level."""
        return len(self._counts)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys, slots and counts."""
        per_frame = sum(keys.nbytes + self._slots[i].nbytes for i, keys in self._fine.items())
        return per_frame + self._counts.nbytes + self._kept.nbytes + self._doubted.nbytes + self._sightings.nbytes

    def add(self, frame_id: int, fine_keys: np.ndarray) -> None:
        """Enters a frame that sees the voxels ``fine_keys`` (level 0, int64 [n], unique, ascending)."""
        slots = self._counts.add(coarsen(fine_keys, self._level))
        self._fine[frame_id], self._slots[frame_id] = fine_keys, slots
        self._adds_since_measured += 1
        if self._counts.generation != self._generation:
            self._generation = self._counts.generation
            self._slots = {i: self._counts.slots(coarsen(keys, self._level)) for i, keys in self._fine.items()}
            self._slots_renumbered()
        elif len(self._doubted):
            stays = ~np.isin(self._doubted, slots)
            self._doubted, self._sightings = self._doubted[stays], self._sightings[stays]

    def keep(self, frame_id: int) -> None:
        """The frame is a keyframe from now on."""
        self._kept.add(frame_id, self._slots[frame_id])

    @property
    def seen_alone(self) -> Mapping[int, int]:
        """The keyframes, and how many voxels of each no other keyframe sees."""
        return self._kept.alone

    def occupied_among(self, keys: np.ndarray) -> np.ndarray:
        """Those of the voxels ``keys`` (present level, int64 [n], unique) that a frame sees."""
        return self._counts.keys_at(self._counts.find(keys))

    def see_through(self, keys: np.ndarray, frames_needed: int) -> list[int]:
        """A frame has seen through the voxels ``keys`` (present level, int64 [n], unique).

        When ``frames_needed`` frames have done so since any frame saw a surface there, the voxel is cleared: no frame
        counts it until it is seen again. A voxel that is added meanwhile is beyond doubt again.

        Returns:
            the frames that it contradicts: some of their voxels were cleared.
        """
        slots = self._counts.find(keys)
        doubted = np.union1d(self._doubted, slots)
        sightings = np.zeros(len(doubted), np.int32)
        sightings[np.searchsorted(doubted, self._doubted)] = self._sightings
        sightings[np.searchsorted(doubted, slots)] += 1
        enough = sightings >= frames_needed
        undecided = ~enough & (self._counts.counts(doubted) > 0)
        self._doubted, self._sightings = doubted[undecided], sightings[undecided]
        cleared = doubted[enough]
        if not len(cleared):
            return []
        is_cleared = np.zeros(self.slot_count, bool)
        is_cleared[cleared] = True
        contradicted = [i for i, own in self._slots.items() if is_cleared[own].any()]
        for frame_id in contradicted:
            own, fine = self._slots[frame_id], self._fine[frame_id]
            stays = ~is_cleared[own]
            self._counts.remove(own[~stays])
            if frame_id in self._kept.alone:
                self._kept.remove(frame_id, own)
                self._kept.add(frame_id, own[stays])
            # the slots of a frame are in the order of its coarse keys
            self._fine[frame_id] = fine[stays[np.unique(coarse_keys(fine, self._level), return_inverse=True)[1]]]
            self._slots[frame_id] = own[stays]
            cleared_of_it = len(own) - int(np.count_nonzero(stays))
            self._contradicted[frame_id] = self.contradicted_voxels(frame_id) + cleared_of_it
        return contradicted

    def contradicted_voxels(self, frame_id: int) -> int:
        """How many of the frame's voxels have been cleared so far."""
        return self._contradicted.get(frame_id, 0)

    def contradicted_share(self, frame_id: int) -> float:
        """The part of the frame's voxels that has been cleared, 0 to 1; voxels of the level of that time."""
        cleared = self.contradicted_voxels(frame_id)
        return cleared / (cleared + len(self._slots[frame_id])) if cleared else 0.0

    def _slots_renumbered(self) -> None:
        """Counts the keyframes again; doubts begin again."""
        keyframes, self._kept = self._kept.alone, SoleVoxels(self.slot_count)
        for frame_id in keyframes:
            self.keep(frame_id)
        self._doubted, self._sightings = self._doubted[:0], self._sightings[:0]

    def remove(self, frame_id: int) -> None:
        """Takes a frame out."""
        del self._fine[frame_id]
        self._contradicted.pop(frame_id, None)
        slots = self._slots.pop(frame_id)
        self._counts.remove(slots)
        if frame_id in self._kept.alone:
            self._kept.remove(frame_id, slots)

    def fine_keys(self, frame_id: int) -> np.ndarray:
        """Voxels of a frame at level 0."""
        return self._fine[frame_id]

    def slots(self, frame_id: int) -> np.ndarray:
        """The frame's voxels as numbers below ``slot_count``, the same for all frames until the next change."""
        return self._slots[frame_id]

    @property
    def slot_count(self) -> int:
        """Upper bound of ``slots``."""
        return self._counts.slot_count

    def frame_counts(self, frame_id: int) -> np.ndarray:
        """By how many frames, itself included, each voxel of a frame is seen: int32 [n], in the order of ``slots``."""
        return self._counts.counts(self._slots[frame_id])

    def keyframe_counts(self, frame_id: int) -> np.ndarray:
        """By how many keyframes each voxel of a frame is seen: int32 [n], in the order of ``slots``."""
        return self._kept.counts(self._slots[frame_id])

    def sole_keyframes(self, frame_id: int) -> Mapping[int, int]:
        """The keyframes that are the only ones to see some voxels of a frame, and how many of these each one sees."""
        return self._kept.owners(self._slots[frame_id])

    def follow_extent(self) -> bool:
        """Goes to the level whose voxels are about 1/20 of the scene's smallest robust side; True when it changed.

        The extent is that of the occupied voxels without the outermost 1 % on each axis; flat sides do not count. It is
        measured after every frame while there are few, later after every eighth.
        """
        if self._adds_since_measured < min(_MEASURE_EVERY, len(self._fine) // 2) or not self.total_voxels:
            return False
        self._adds_since_measured = 0
        keys, _ = self._counts.living()
        cells = np.sort(unpack_cells(keys, self._level), axis=0)
        cut = int(_ROBUST_SHARE * (len(cells) - 1))
        sides_fine = (cells[len(cells) - 1 - cut] - cells[cut] + 1) * (1 << self._level)
        wanted = math.log2(max(1.0, smallest_side(sides_fine) / CELLS_PER_SIDE))
        level = min(MAX_LEVEL, round(wanted))
        if abs(wanted - self._level) <= _HYSTERESIS_LEVELS or level == self._level:
            return False
        self._level = level
        self._counts = VoxelCounts()
        for frame_id, fine in self._fine.items():
            self._slots[frame_id] = self._counts.add(coarsen(fine, level))
        if self._counts.generation:  # it grew while it was filled, so the first slots are out of date
            self._slots = {i: self._counts.slots(coarsen(keys, level)) for i, keys in self._fine.items()}
        self._generation = self._counts.generation
        self._slots_renumbered()
        return True


def smallest_side(sides: np.ndarray) -> float:
    """The smallest of three side lengths that is not flat beside the second largest; sides of 0 never count.

    Returns 0 when all three are 0.
    """
    descending = np.sort(sides)[::-1]
    solid = descending[(descending > 0) & (descending >= _FLAT_SHARE * descending[1])]
    return float(solid[-1]) if len(solid) else 0.0
