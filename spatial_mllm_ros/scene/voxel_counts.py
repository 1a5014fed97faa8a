"""How many frames see each voxel: a hash table on arrays, so that a frame takes time for its own voxels only."""

from __future__ import annotations

import numpy as np

_EMPTY = np.int64(-1)
_SMALLEST = 1 << 12
_SLOTS_PER_VOXEL = 3  # after a rebuild; the next one comes when half of the slots are taken
_HALF = np.uint64(32)
# Fibonacci hashing (Knuth, The Art of Computer Programming, vol. 3, 6.4): 2^64 / golden ratio, odd
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class VoxelCounts:
    """Counts per voxel key, by open addressing with linear probing; all operations take many keys at once.

    The keys of one call must be unique. A voxel whose count falls to 0 keeps its slot until the next rebuild; a rebuild
    happens when half of the slots are taken and keeps only the voxels with a count above 0, so the table's size depends
    on what is seen now and not on what was ever seen.

    A slot identifies a living voxel as long as ``generation`` stays the same.
    """

    def __init__(self) -> None:
        self.generation = 0  #: grows whenever slots are numbered anew
        self._allocate(_SMALLEST)

    def __len__(self) -> int:
        """Voxels with a count above 0."""
        return self._living

    @property
    def slot_count(self) -> int:
        """Upper bound of slots."""
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self._keys.nbytes + self._counts.nbytes

    def add(self, keys: np.ndarray) -> np.ndarray:
        """One more frame sees the voxels ``keys`` (int64 [n], unique); returns their slots, int32 [n]."""
        if self._taken + len(keys) > len(self._keys) // 2:
            self._rebuild(room_for=len(keys))
        slots = self._claim(keys)
        counts = self._counts[slots]
        self._living += int(np.count_nonzero(counts == 0))
        self._counts[slots] = counts + 1
        return slots

    def remove(self, slots: np.ndarray) -> None:
        """One frame less sees the voxels in ``slots``."""
        counts = self._counts[slots] - 1
        self._living -= int(np.count_nonzero(counts == 0))
        self._counts[slots] = counts

    def counts(self, slots: np.ndarray) -> np.ndarray:
        """How many frames see the voxels in ``slots``, int32 [n]."""
        return self._counts[slots]

    def slots(self, keys: np.ndarray) -> np.ndarray:
        """Slots int32 [n] of keys that have been added before."""
        slots = self._home(keys)
        waiting = np.flatnonzero(self._keys[slots] != keys)
        while len(waiting):
            moved = self._next(slots[waiting])
            slots[waiting] = moved
            waiting = waiting[self._keys[moved] != keys[waiting]]
        return slots

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Slots int32 [m] of those of ``keys`` (int64 [n]) whose count is above 0."""
        slots = self._home(keys)
        waiting = np.arange(len(keys))
        found = np.zeros(len(keys), bool)
        while len(waiting):
            there = self._keys[slots[waiting]]
            found[waiting[there == keys[waiting]]] = True
            waiting = waiting[(there != keys[waiting]) & (there != _EMPTY)]
            slots[waiting] = self._next(slots[waiting])
        slots = slots[found]
        return slots[self._counts[slots] > 0]

    def keys_at(self, slots: np.ndarray) -> np.ndarray:
        """Keys int64 [n] of the voxels in ``slots``."""
        return self._keys[slots]

    def living(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys int64 [n] and counts int32 [n] of all voxels with a count above 0, in no order."""
        alive = np.flatnonzero(self._counts > 0)
        return self._keys[alive], self._counts[alive]

    def _allocate(self, slots: int) -> None:
        self._keys = np.full(slots, _EMPTY)
        self._counts = np.zeros(slots, np.int32)
        self._taken = 0
        self._living = 0

    def _home(self, keys: np.ndarray) -> np.ndarray:
        # the upper half of the product is spread evenly over [0, 2^32); scaled, over any number of slots
        spread = (keys.view(np.uint64) * _MULTIPLIER) >> _HALF
        return ((spread * np.uint64(len(self._keys))) >> _HALF).astype(np.int32)

    def _next(self, slots: np.ndarray) -> np.ndarray:
        after = slots + np.int32(1)
        after[after == len(self._keys)] = 0
        return after

    def _claim(self, keys: np.ndarray) -> np.ndarray:
        slots = self._home(keys)
        waiting = np.arange(len(keys))
        while len(waiting):
            at = slots[waiting]
            empty = self._keys[at] == _EMPTY
            self._keys[at[empty]] = keys[waiting[empty]]  # of several keys for one slot the last one gets it
            got = self._keys[at] == keys[waiting]
            self._taken += int(np.count_nonzero(got & empty))
            waiting = waiting[~got]
            slots[waiting] = self._next(slots[waiting])
        return slots

    def _rebuild(self, room_for: int) -> None:
        keys, counts = self.living()
        self._allocate(max(_SMALLEST, _SLOTS_PER_VOXEL * (len(keys) + room_for)))
        self.generation += 1
        self._counts[self._claim(keys)] = counts
        self._living = len(keys)
