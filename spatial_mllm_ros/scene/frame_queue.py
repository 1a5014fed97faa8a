"""The camera's side of a scene: stamps, epochs, thinning, the ring, and the frames that wait for the encoder.

Everything here is O(1) and waits for nothing but a short lock, so a camera callback may call it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.ring_buffer import RingBuffer
from spatial_mllm_ros.scene.config import SceneConfig

_log = logging.getLogger(__name__)
_WARM_BUFFERS = 64


@dataclass(frozen=True)
class QueueFigures:
    """What a queue holds and has left out; see ``SceneStatus`` for the fields."""

    epoch: int
    ring_frames: int
    ring_bytes: int
    pending: int
    newest_stamp_ns: int
    counts: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class RingState:
    """The ring at one moment.

    Attributes:
        frames: in the ring, oldest first.
        waiting: how many of them wait for the encoder: the newest ones.
    """

    epoch: int
    frames: tuple[Frame, ...]
    waiting: int

    @property
    def tried(self) -> tuple[Frame, ...]:
        """The frames that wait no more, because the encoder has placed them or could not."""
        return self.frames[: len(self.frames) - self.waiting]


class FrameQueue:
    """Takes frames in, counts those that it leaves out, and numbers the epochs.

    The camera's thread calls ``admits``, ``lease``, ``add``, ``count_rejected`` and ``start_epoch``; the other methods
    are the worker's.

    Args:
        config: bounds of the ring, rate, and the clock jump that starts an epoch.
        spare_slots: frames that others hold beside the ring and the keyframes.
    """

    def __init__(self, config: SceneConfig, *, spare_slots: int) -> None:
        self._config = config
        self._lock = threading.Lock()
        # While the worker is busy, frames that have left the ring are still held by the map: a whole ring at most.
        self._ring = RingBuffer(
            config.ring_frames,
            config.ring_bytes,
            spare_slots=spare_slots,
            kept_frames=config.keyframes + config.ring_frames,
            kept_bytes=config.keyframe_bytes + config.ring_bytes,
        )
        self._pending: deque[Frame] = deque()
        self._counts: Counter[str] = Counter()
        self._epoch = 0
        self._newest: Frame | None = None
        self._restored: frozenset[int] = frozenset()  # stamps of a restored scene; empty outside its epoch
        self._clock_unknown = False  # a scene was restored, and no frame has come since

    @property
    def epoch(self) -> int:
        """Number of the present epoch; it grows at every backward clock jump."""
        return self._epoch

    @property
    def pending(self) -> int:
        """How many frames wait for the encoder."""
        return len(self._pending)

    def lease(self, height_px: int, width_px: int) -> np.ndarray:
        """A buffer uint8 [H, W, 3] to decode the next frame into, so that its pixels are written once.

        It comes back by itself when nothing holds the frame made of it (or the buffer, if no frame is made) any more.

        Raises:
            FrameRejectedError: cause ``pool`` or ``size``; counted.
        """
        try:
            return self._ring.lease(height_px, width_px)
        except FrameRejectedError as err:
            self.count_rejected(err.cause)
            raise

    def admits(self, stamp_ns: int) -> bool:
        """Whether a frame of this stamp would be taken: ask before decoding. A refusal is counted here."""
        with self._lock:
            refusal = self._refusal(stamp_ns)
            if refusal:
                self._counts[refusal] += 1
            return not refusal

    def add(self, frame: Frame) -> bool:
        """Takes a frame in; False when it comes sooner after the last one than the rate allows (counted as thinned).

        A stamp that goes back by more than the configured jump starts a new epoch: everything seen is forgotten. So
        does, for a camera without poses, another image size or camera frame.

        Raises:
            FrameRejectedError: cause ``stamp`` (duplicate, or slightly backward) or ``size``; counted.
        """
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
            try:  # first of all: a frame that is refused must not end an epoch
                self._ring.refuse_too_large(frame.nbytes)
            except FrameRejectedError as err:
                self._counts[err.cause] += 1
                raise
            reason = self._reason_for_new_epoch(frame)
            if reason:
                self._start_epoch(reason)
            if self._clock_unknown and self._newest is not None and frame.stamp_ns <= self._newest.stamp_ns:
                self._ring.clear()
            evicted = self._ring.push(frame)
            for old in evicted:
                if self._pending and self._pending[0] is old:
                    self._pending.popleft()
                    self._counts["unprocessed"] += 1
            self._pending.append(frame)
            self._newest = frame
            self._clock_unknown = False
            return True

    def count_rejected(self, cause: str, frames: int = 1) -> None:
        """Counts messages that never became a frame, or frames left out, so that all losses are in one place."""
        with self._lock:
            self._counts[cause] += frames

    def start_epoch(self, reason: str) -> None:
        """Forgets everything seen, for a reason that stamps do not show (such as a pose that jumped)."""
        with self._lock:
            self._start_epoch(reason)

    # The worker's side

    def warm(self) -> None:
        """Prepares memory for the next frames, in the worker's time and not the camera's."""
        self._ring.warm(_WARM_BUFFERS)

    def take_window(self, most: int) -> tuple[int, list[Frame]]:
        """The epoch, and the oldest waiting frames, up to ``most``, all of one size and camera; they wait no longer."""
        with self._lock:
            window: list[Frame] = []
            while self._pending and len(window) < most and (not window or window[0].is_like(self._pending[0])):
                window.append(self._pending.popleft())
            return self._epoch, window

    def ring(self) -> RingState:
        """The ring at this moment; the worker asks for it between windows."""
        with self._lock:
            return RingState(self._epoch, tuple(self._ring.frames()), len(self._pending))

    def newest(self) -> Frame | None:
        """The newest frame of this epoch that the camera sent; None when there is none."""
        with self._lock:
            return None if self._clock_unknown else self._newest

    def restore(self, ring: Sequence[Frame], others: Sequence[Frame], reason: str) -> int:
        """Starts an epoch with frames of an earlier run in the ring, oldest first; returns its number.

        The clock of the new run has nothing to do with the stamps of these frames, so the next frame may have any stamp
        but one of theirs: a stamp names a frame within its epoch. Where it is not later than all of theirs, they leave
        the ring, whose order the new clock decides from then on.

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
            self._restored = frozenset(f.stamp_ns for f in [*others, *ring])
            self._clock_unknown = True
            return self._epoch

    # Readers

    def figures(self) -> QueueFigures:
        """What is held and what was left out, of one moment."""
        with self._lock:
            return QueueFigures(
                epoch=self._epoch,
                ring_frames=len(self._ring),
                ring_bytes=self._ring.nbytes,
                pending=len(self._pending),
                newest_stamp_ns=0 if self._newest is None or self._clock_unknown else self._newest.stamp_ns,
                counts=dict(self._counts),
            )

    def _refusal(self, stamp_ns: int) -> str:
        if stamp_ns <= 0 or stamp_ns in self._restored:
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
            # without poses only the pictures themselves tie the new camera to the old scene
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
        self._newest = None
        self._restored = frozenset()
        self._clock_unknown = False
        _log.warning("Epoch %d starts, all that was seen is forgotten: %s.", self._epoch, reason)
