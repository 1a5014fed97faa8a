"""Which voxels only one keyframe sees, kept up to date at the cost of the keyframe that comes or goes."""

from __future__ import annotations

import numpy as np

_MOST_IN_16_BITS = (1 << 16) - 1


class SoleVoxels:
    """By how many frames of a set each voxel is seen, and for each frame how many voxels no other frame sees.

    Frames have small numbers. Beside the count of a voxel stands the exclusive or of the numbers of the frames that see
    it: where the count is 1, that is the number of the only one.

    Args:
        slot_count: upper bound of the voxels' slots.
    """

    def __init__(self, slot_count: int) -> None:
        self.alone: dict[int, int] = {}  #: by frame, how many voxels only it sees
        self._counts = np.zeros(slot_count, np.uint16)
        self._numbers = np.zeros(slot_count, np.uint16)
        self._number_of: dict[int, int] = {}
        self._frame_of: list[int] = []  # by number
        self._free: list[int] = []  # numbers that no frame has

    @property
    def nbytes(self) -> int:
        """Bytes of the counts and numbers."""
        return self._counts.nbytes + self._numbers.nbytes

    def counts(self, slots: np.ndarray) -> np.ndarray:
        """By how many frames of the set each voxel is seen, int32 [n]."""
        return self._counts[slots].astype(np.int32)

    def add(self, frame_id: int, slots: np.ndarray) -> None:
        """Takes in a frame that sees the voxels in ``slots`` (int [n], unique)."""
        if len(self.alone) == _MOST_IN_16_BITS:
            self._counts, self._numbers = self._counts.astype(np.uint32), self._numbers.astype(np.uint32)
        for owner, voxels in self.owners(slots).items():
            self.alone[owner] -= voxels
        counts = self._counts[slots]
        self.alone[frame_id] = int(np.count_nonzero(counts == 0))
        if self._free:
            number = self._free.pop()
            self._frame_of[number] = frame_id
        else:
            number = len(self._frame_of)
            self._frame_of.append(frame_id)
        self._number_of[frame_id] = number
        self._counts[slots] = counts + 1
        self._numbers[slots] ^= number

    def remove(self, frame_id: int, slots: np.ndarray) -> None:
        """Takes out a frame that was added with these ``slots``."""
        del self.alone[frame_id]
        number = self._number_of.pop(frame_id)
        self._free.append(number)
        self._counts[slots] -= 1
        self._numbers[slots] ^= number
        for owner, voxels in self.owners(slots).items():
            self.alone[owner] += voxels

    def owners(self, slots: np.ndarray) -> dict[int, int]:
        """The frames that see voxels in ``slots`` alone, and how many of these each one sees."""
        voxels = np.bincount(self._numbers[slots[self._counts[slots] == 1]])
        return {self._frame_of[number]: int(voxels[number]) for number in np.flatnonzero(voxels)}
