"""The camera's side of a scene: stamps, epochs, thinning, the ring, and the frames that wait for the encoder.

Everything here is O(1) and waits for nothing but its own short lock, so it may run in a camera callback.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.ring_buffer import RingBuffer
from spatial_mllm_ros.scene.config import SceneConfig

_log = logging.getLogger(__name__)
_WARMED_AT_ONCE = 64


@dataclass(frozen=True)
class IntakeFigures:
    """What an intake holds and has left out; see ``SceneStatus`` for the fields."""

    epoch: int
    ring_frames: int
    ring_bytes: int
    pending: int
    newest_stamp_ns: int
    counts: dict[str, int]


class FrameIntake:
    """Takes frames in, counts those it leaves out, and numbers the epochs."""

    def __init__(self, config: SceneConfig, *, spare_slots: int) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._ring = RingBuffer(
            config.ring_frames,
            config.ring_bytes,
            spare_slots=spare_slots,
            kept_frames=config.keyframes,
            kept_bytes=config.keyframe_bytes,
        )
        self._pending: deque[Frame] = deque()
        self._counts: Counter[str] = Counter()
        self._epoch = 0
        self._newest: Frame | None = None
        self._taken_over: frozenset[int] = frozenset()  # stamps of a loaded scene; empty outside its epoch
        self._clock_unknown = False  # a scene was loaded, and no frame has come since
        self._ring_set_aside = False
        self._encoding_from_ns: int | None = None

    def lease(self, height_px: int, width_px: int) -> np.ndarray:
        """See ``Scene.lease``."""
        try:
            return self._ring.lease(height_px, width_px)
        except FrameRejectedError as err:
            self.count(err.cause)
            raise

    def warm(self) -> None:
        """Prepares some of the ring's memory that no frame has used yet, in the worker's time and not the camera's."""
        self._ring.warm(_WARMED_AT_ONCE)

    def admits(self, stamp_ns: int) -> bool:
        """See ``Scene.admits``."""
        with self._lock:
            refusal = self._refusal(stamp_ns)
            if refusal:
                self._counts[refusal] += 1
            return not refusal

    def add(self, frame: Frame) -> bool:
        """See ``Scene.add``."""
        with self._lock:
            refusal = self._refusal(frame.stamp_ns)
            if refusal:
                self._counts[refusal] += 1
            if refusal == "stamp":
                newest = 0 if self._newest is None else self._newest.stamp_ns
                raise FrameRejectedError(
                    "stamp",
                    f"The frame's stamp {frame.stamp_ns} ns is not later than the newest one, {newest} ns, or is one "
                    "of the loaded scene. Stamps must grow; two publishers on one topic or a repeated message break "
                    "this.",
                )
            if refusal:
                return False
            reason = self._reason_for_new_epoch(frame)
            if reason:
                self._start_epoch(reason)
            if self._clock_unknown and self._newest is not None and frame.stamp_ns <= self._newest.stamp_ns:
                self._ring.clear()
                self._ring_set_aside = True
            try:
                evicted = self._ring.push(frame)
            except FrameRejectedError as err:
                self._counts[err.cause] += 1
                raise
            for old in evicted:
                if self._pending and self._pending[0] is old:
                    self._pending.popleft()
                    self._counts["unprocessed"] += 1
            self._pending.append(frame)
            self._newest = frame
            self._clock_unknown = False
            return True

    def start_epoch(self, reason: str) -> None:
        """See ``Scene.start_epoch``."""
        with self._lock:
            self._start_epoch(reason)

    def take_over(self, ring: Sequence[Frame], others: Sequence[Frame], reason: str) -> int:
        """Starts an epoch with frames of an earlier run in the ring, oldest first; returns its number.

        The clock of the new run has nothing to do with their stamps, so the next frame may have any stamp but one of
        theirs: a stamp names a frame within its epoch. Where it is not later than all of theirs, they leave the ring,
        whose order the new clock decides from then on.

        Args:
            ring: must keep to the bounds of the ring.
            others: frames that are held beyond the ring; one at least, here or there.
            reason: for the log.
        """
        with self._lock:
            self._start_epoch(reason)
            for frame in ring:
                self._ring.push(frame)
            self._newest = [*others, *ring][-1]
            self._taken_over = frozenset(f.stamp_ns for f in [*others, *ring])
            self._clock_unknown = True
            return self._epoch

    def ring_was_set_aside(self) -> bool:
        """Whether the frames taken over have left the ring all at once since this was asked last."""
        with self._lock:
            was, self._ring_set_aside = self._ring_set_aside, False
            return was

    def newest(self) -> Frame | None:
        """The newest frame of this epoch and this run; None when none has come."""
        with self._lock:
            return None if self._clock_unknown else self._newest

    def take_window(self, most: int) -> tuple[int, list[Frame]]:
        """The epoch, and the oldest waiting frames, up to ``most``, all of one size and camera; they wait no longer."""
        with self._lock:
            window: list[Frame] = []
            while self._pending and len(window) < most and (not window or window[0].is_like(self._pending[0])):
                window.append(self._pending.popleft())
            self._encoding_from_ns = window[0].stamp_ns if window else None
            return self._epoch, window

    def window_done(self) -> None:
        """The window taken last has been dealt with."""
        with self._lock:
            self._encoding_from_ns = None

    def tried(self) -> tuple[int, list[Frame]]:
        """The epoch and the frames in the ring that wait for the encoder no more, oldest first."""
        with self._lock:
            waiting = [s for s in (self._encoding_from_ns, self._pending[0].stamp_ns if self._pending else None) if s]
            before_ns = min(waiting, default=None)
            return self._epoch, [f for f in self._ring.frames() if before_ns is None or f.stamp_ns < before_ns]

    def count(self, cause: str, frames: int = 1) -> None:
        """Counts frames left out."""
        with self._lock:
            self._counts[cause] += frames

    def held(self) -> tuple[int, list[Frame]]:
        """The epoch and the frames in the ring, oldest first."""
        with self._lock:
            return self._epoch, self._ring.frames()

    def horizon(self) -> tuple[int, int]:
        """The epoch and the stamp of the oldest frame in the ring; 0 when it is empty."""
        with self._lock:
            return self._epoch, self._ring.oldest_stamp_ns

    def figures(self) -> IntakeFigures:
        """What is held and what was left out, of one moment."""
        with self._lock:
            return IntakeFigures(
                epoch=self._epoch,
                ring_frames=len(self._ring),
                ring_bytes=self._ring.nbytes,
                pending=len(self._pending),
                newest_stamp_ns=0 if self._newest is None or self._clock_unknown else self._newest.stamp_ns,
                counts=dict(self._counts),
            )

    def _refusal(self, stamp_ns: int) -> str:
        if stamp_ns <= 0 or stamp_ns in self._taken_over:
            return "stamp"
        if self._newest is None or self._clock_unknown:
            return ""
        step_ns = stamp_ns - self._newest.stamp_ns
        if step_ns < -self._config.time_jump_ns:
            return ""
        if step_ns <= 0:
            return "stamp"
        return "thinned" if step_ns < self._config.min_interval_ns else ""

    def _reason_for_new_epoch(self, frame: Frame) -> str:
        last = self._newest
        if last is None:
            return ""
        if frame.stamp_ns < last.stamp_ns and not self._clock_unknown:
            return f"the clock went back by {(last.stamp_ns - frame.stamp_ns) / 1e9:.3f} s"
        if not frame.is_like(last) and frame.scene_from_cam is None:
            # without poses nothing ties the new camera to the old scene but the pictures themselves
            return (
                f"the camera changed from {last.rgb.shape[1]}x{last.rgb.shape[0]} {last.camera_frame_id!r} to "
                f"{frame.rgb.shape[1]}x{frame.rgb.shape[0]} {frame.camera_frame_id!r} and has no pose"
            )
        return ""

    def _start_epoch(self, reason: str) -> None:
        self._epoch += 1
        self._ring.clear()
        self._counts["epoch"] += len(self._pending)
        self._pending.clear()
        self._encoding_from_ns = None
        self._newest = None
        self._taken_over = frozenset()
        self._clock_unknown = self._ring_set_aside = False
        _log.warning("Epoch %d starts, all that was seen is forgotten: %s.", self._epoch, reason)
