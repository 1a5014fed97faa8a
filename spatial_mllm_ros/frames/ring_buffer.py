"""The most recent frames, bounded in number and in bytes, oldest out first."""

from __future__ import annotations

from collections import deque

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.pool import SlotPool


class RingBuffer:
    """Frames in order of their stamps; pushing is O(1).

    ``lease`` gives a buffer to decode into, so that a frame's pixels are written once and never copied. Frames that
    were not leased (replay, tests) are taken as they are, also without a copy. ``warm`` may run in another thread than
    ``lease``; the caller guards all other methods (see ``FrameQueue``).

    Args:
        capacity_frames: most frames held.
        capacity_bytes: most bytes of pixels held, colour and depth together.
        spare_slots: buffers beyond the ring's own, for frames that others hold (an answer in progress).
        kept_frames, kept_bytes: bounds of a store that keeps frames which have left the ring; the fewer buffers that
            either allows are set aside for it.
    """

    def __init__(
        self,
        capacity_frames: int,
        capacity_bytes: int,
        *,
        spare_slots: int = 4,
        kept_frames: int = 0,
        kept_bytes: int = 0,
    ) -> None:
        if capacity_frames < 1 or capacity_bytes < 1 or spare_slots < 1:
            raise ConfigurationError(
                f"The ring buffer's capacity_frames ({capacity_frames}), capacity_bytes ({capacity_bytes}) and "
                f"spare_slots ({spare_slots}) must all be at least 1."
            )
        self.capacity_frames, self.capacity_bytes = capacity_frames, capacity_bytes
        self._spare_slots = spare_slots
        self._kept_frames, self._kept_bytes = kept_frames, kept_bytes
        self._frames: deque[Frame] = deque()
        self._nbytes = 0
        self._pool: SlotPool | None = None

    def lease(self, height_px: int, width_px: int) -> np.ndarray:
        """A buffer uint8 [H, W, 3] to decode the next frame into; it comes back when nobody holds it any more.

        Another size than before starts a new pool; frames of the old one live on until they are released.

        Raises:
            FrameRejectedError: cause ``pool`` (all buffers held) or ``size`` (one frame exceeds capacity_bytes).
        """
        pool = self._pool
        if pool is None or (pool.height_px, pool.width_px) != (height_px, width_px):
            slot_bytes = height_px * width_px * 3
            self.refuse_too_large(slot_bytes)
            ring_slots = min(self.capacity_frames, self.capacity_bytes // slot_bytes)
            kept_slots = min(self._kept_frames, self._kept_bytes // slot_bytes)
            pool = self._pool = SlotPool(ring_slots + kept_slots + self._spare_slots, height_px, width_px)
        return pool.lease()

    def warm(self, slots: int) -> None:
        """Prepares buffers until ``slots`` are ready; takes milliseconds each, so not for the camera's thread."""
        pool = self._pool
        if pool is not None:
            pool.warm(slots)

    def push(self, frame: Frame) -> list[Frame]:
        """Appends ``frame`` and returns the frames that had to leave for it, oldest first.

        Raises:
            FrameRejectedError: cause ``stamp`` (not later than the newest) or ``size`` (exceeds capacity_bytes).
        """
        nbytes = frame.nbytes
        self.refuse_too_large(nbytes)
        evicted: list[Frame] = []
        if self._frames and frame.stamp_ns <= self._frames[-1].stamp_ns:
            raise FrameRejectedError(
                "stamp",
                f"The frame's stamp {frame.stamp_ns} ns is not later than the newest one, "
                f"{self._frames[-1].stamp_ns} ns.",
            )
        while len(self._frames) >= self.capacity_frames or self._nbytes + nbytes > self.capacity_bytes:
            oldest = self._frames.popleft()
            self._nbytes -= oldest.nbytes
            evicted.append(oldest)
        self._frames.append(frame)
        self._nbytes += nbytes
        return evicted

    def clear(self) -> None:
        """Lets go of every frame."""
        self._frames.clear()
        self._nbytes = 0

    def frames(self) -> list[Frame]:
        """The frames held now, oldest first."""
        return list(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def nbytes(self) -> int:
        """Bytes of pixels held, colour and depth."""
        return self._nbytes

    def refuse_too_large(self, nbytes: int) -> None:
        """Whether one frame of ``nbytes`` fits; FrameRejectedError, cause ``size``, if not."""
        if nbytes > self.capacity_bytes:
            raise FrameRejectedError(
                "size",
                f"One frame takes {nbytes} bytes and the ring buffer holds {self.capacity_bytes}; raise its capacity "
                "in bytes or publish smaller images.",
            )
