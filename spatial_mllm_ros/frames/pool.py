"""Preallocated image buffers that return to their pool when no array refers to them any more."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections import deque

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError


class SlotPool:
    """A fixed number of uint8 [H, W, 3] buffers in one block of memory.

    ``lease`` hands out a buffer as an ordinary array. It returns to the pool when the array and every view of it are
    gone, so a frame (or a tensor made from it) may be held for as long as it is needed, and a message that fails to
    decode leaks nothing. Unused slots cost address space only; the first write to one costs milliseconds, in which the
    system provides its pages, so ``warm`` should be called now and then by a thread that has the time.

    Returning a slot takes no lock, because Python may run it at any allocation, also in the thread that is leasing.
    """

    def __init__(self, slots: int, height_px: int, width_px: int) -> None:
        if slots < 1 or height_px < 1 or width_px < 1:
            raise ConfigurationError(
                f"A pool of {slots} slots of {width_px}x{height_px} pixels is not possible; all must be at least 1."
            )
        self.height_px, self.width_px = height_px, width_px
        self.slots = slots
        self._slot_bytes = height_px * width_px * 3
        self._memory = np.empty(slots * self._slot_bytes, np.uint8).data
        self._untouched: deque[int] = deque(range(slots))
        self._free: deque[int] = deque()  # written before, so their pages are there

    @property
    def free_slots(self) -> int:
        """Slots that are not leased."""
        return len(self._free) + len(self._untouched)

    def warm(self, slots: int) -> None:
        """Touches unused slots until ``slots`` free ones have been touched, so that writing to them is quick.

        Any thread may call it.
        """
        while len(self._free) < slots:
            try:
                slot = self._untouched.popleft()
            except IndexError:
                return
            # memset through ctypes lets other threads run meanwhile; an assignment of numpy would hold them up
            ctypes.memset(self._bytes_of(slot).ctypes.data, 0, self._slot_bytes)
            self._free.append(slot)

    def lease(self) -> np.ndarray:
        """A free buffer, uint8 [H, W, 3], contents undefined.

        Raises:
            FrameRejectedError: cause ``pool``: every slot is held.
        """
        slot = self._pop()
        # A view of an array keeps the innermost array of the chain alive, which is ``owner``: its base is a memoryview
        # and not an array. So ``owner`` is watched; the reshaped array handed out may die before its views.
        owner = self._bytes_of(slot)
        weakref.finalize(owner, self._free.append, slot).atexit = False
        return owner.reshape(self.height_px, self.width_px, 3)

    def _pop(self) -> int:
        for slots in (self._free, self._untouched):
            with contextlib.suppress(IndexError):
                return slots.pop()
        raise FrameRejectedError(
            "pool",
            f"All {self.slots} buffers of {self.width_px}x{self.height_px} are held; the frame is dropped. "
            "Release frames sooner, or raise the capacity of the buffer.",
        )

    def _bytes_of(self, slot: int) -> np.ndarray:
        start = slot * self._slot_bytes
        return np.frombuffer(self._memory[start : start + self._slot_bytes], np.uint8)
