"""Preallocated image buffers that come back by themselves when nobody looks at them any more."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError


class SlotPool:
    """A fixed number of uint8 [H, W, 3] buffers in one block of memory.

    ``lease`` hands out a buffer as an ordinary array. It returns to the pool when the array and every view of it are
    gone, so a frame (or a tensor made from it) may be held for as long as it is needed, and a message that fails to
    decode leaks nothing. The block is not touched before it is used: unused slots cost address space only.

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
        self._free: deque[int] = deque(range(slots))

    @property
    def free_slots(self) -> int:
        """Slots that nobody holds."""
        return len(self._free)

    def lease(self) -> np.ndarray:
        """A free buffer, uint8 [H, W, 3], contents undefined.

        Raises:
            FrameRejectedError: cause ``pool``: every slot is held.
        """
        try:
            slot = self._free.popleft()
        except IndexError:
            raise FrameRejectedError(
                "pool",
                f"All {self.slots} buffers of {self.width_px}x{self.height_px} are held; the frame is dropped. "
                "Release frames sooner, or raise the capacity of the buffer.",
            ) from None
        start = slot * self._slot_bytes
        # A view of an array keeps the innermost array of the chain alive, which is the one made here: its base is a
        # memoryview and not an array. That is the one to watch; the reshaped array handed out may die before its views.
        owner = np.frombuffer(self._memory[start : start + self._slot_bytes], np.uint8)
        weakref.finalize(owner, self._free.append, slot).atexit = False
        return owner.reshape(self.height_px, self.width_px, 3)
