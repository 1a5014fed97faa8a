"""The worker's side of a scene: has the encoder look at waiting frames, places them, and publishes what is known."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from spatial_mllm_ros.encoders.base import ChoosesPerEpoch, FrameGeometry, GeometryEncoder
from spatial_mllm_ros.errors import EncoderError, SpatialMllmError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.frame_queue import FrameQueue, RingState
from spatial_mllm_ros.scene.map import EpochMap
from spatial_mllm_ros.scene.records import SceneSnapshot
from spatial_mllm_ros.scene.saved.content import SceneContent, refuse_what_does_not_fit
from spatial_mllm_ros.scene.stage_clock import Stage, StageClock

_log = logging.getLogger(__name__)


class FramePlacer:
    """Places frames in the map of the present epoch. One thread at a time uses it; other threads read ``snapshot``.

    Args:
        config: bounds and choices.
        encoder: gives the geometry of frames.
        queue: where the frames wait.

    Attributes:
        snapshot: what is known, replaced as a whole whenever that has changed. Its epoch may have ended since.
        last_encoder_error: why the latest window failed; "" when it did not.
        clock: where the time goes.
    """

    def __init__(self, config: SceneConfig, encoder: GeometryEncoder, queue: FrameQueue) -> None:
        self._config = config
        self._encoder = encoder
        self._queue = queue
        self._in_use = threading.Lock()  # never waited for
        self.clock = StageClock()
        self._map = self._new_map(epoch=0)
        self._published: object = None  # what the snapshot was made of
        self.snapshot = SceneSnapshot.empty(epoch=0)
        self.last_encoder_error = ""

    def process(self, max_calls: int | None = None) -> int:
        """Encodes waiting frames, oldest first, in windows of what is there up to the encoder's size; then publishes.

        An ``EncoderError`` does not leave this function: the window is tried again in halves, as one bad frame (or too
        little memory) must not cost its neighbours; frames that still fail are counted as ``encoder``, and the error is
        logged and kept in ``last_encoder_error``. Results of an epoch that has ended meanwhile are dropped.

        Args:
            max_calls: most windows to take; None for as many as it needs until nothing waits.

        Returns:
            the number of frames that now have a place in the scene.
        """
        placed = calls = 0
        with self._alone():
            self._queue.warm()
            try:
                while max_calls is None or calls < max_calls:
                    epoch, frames = self._queue.take_window(max(1, self._encoder.window_size))
                    if not frames:
                        break
                    placed += self._encode(epoch, frames, first_try=True)
                    calls += 1
            finally:
                self._publish()
        return placed

    def content(self) -> SceneContent:
        """All that is known at this moment but for the frames that wait."""
        with self._alone():
            ring = self._publish()
            return self._map.content(ring.tried, waiting=ring.waiting)

    def restore(self, content: SceneContent, reason: str) -> int:
        """Puts ``content`` in the place of all that is known, as a new epoch, and returns its number.

        Its frames keep their stamps. New frames are placed by its anchors and by their own poses: the robot must go on
        in the same frame of reference or, without poses, in view of what the anchors show.

        Args:
            content: of another scene, or of this one at another time.
            reason: for the log.

        Raises:
            StorageError: ``settings``: it does not fit the configuration or the camera, or ``empty``; nothing has
                changed then.
        """
        with self._alone():
            refuse_what_does_not_fit(content, self._config, self._encoder.anchor_count, self._queue.newest())
            restored = self._new_map(epoch=0)
            restored.restore(content)
            restored.epoch = self._queue.restore(content.ring, content.keyframes, reason)
            self._map, self.last_encoder_error = restored, ""
            if isinstance(self._encoder, ChoosesPerEpoch):
                self._encoder.forget_choice()
            self._publish()
            return restored.epoch

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._in_use.acquire(blocking=False):
            raise SpatialMllmError(
                "Two threads process, save or restore a scene at the same time; only one worker thread may."
            )
        try:
            yield
        finally:
            self._in_use.release()

    def _encode(self, epoch: int, frames: list[Frame], *, first_try: bool) -> int:
        if self._follow_queue().epoch != epoch:
            self._queue.count_rejected("epoch", len(frames))
            return 0
        try:
            with self.clock.running(Stage.ENCODE):
                geometries = self._encoder.encode(frames, self._map.anchors)
            _check(frames, geometries)
        except EncoderError as err:
            self.last_encoder_error = str(err)
            if first_try:
                _log.warning("The %s encoder failed on %d frames: %s", self._encoder.name, len(frames), err)
            if len(frames) == 1:
                self._queue.count_rejected("encoder")
                return 0
            middle = len(frames) // 2
            return sum(self._encode(epoch, part, first_try=False) for part in (frames[:middle], frames[middle:]))
        if first_try:
            self.last_encoder_error = ""
        if self._follow_queue().epoch != epoch:
            self._queue.count_rejected("epoch", len(frames))
            return 0
        placed = self._map.place(frames, geometries)
        self._follow_queue()  # a frame may have left the ring while it was being encoded
        return placed

    def _follow_queue(self) -> RingState:
        """Begins a new map after an epoch's end, and retires the frames that have left the ring."""
        ring = self._queue.ring()
        if ring.epoch != self._map.epoch:
            self._map = self._new_map(ring.epoch)
        self._map.retire_all_but({frame.stamp_ns for frame in ring.frames})
        return ring

    def _publish(self) -> RingState:
        """Replaces the snapshot if anything has changed; returns the ring that it was made for."""
        ring = self._follow_queue()
        # frames without geometry matter only while there are too few others
        fill = self._map.frame_count < self._config.selected_frames
        unplaced = [f for f in ring.tried if not self._map.is_recent(f.stamp_ns)] if fill else []
        made_of = (ring.epoch, self._map.revision, tuple(f.stamp_ns for f in unplaced))
        if made_of != self._published:
            self._published, self.snapshot = made_of, self._map.snapshot(unplaced)
        return ring

    def _new_map(self, epoch: int) -> EpochMap:
        return EpochMap(self._config, epoch, self._encoder.anchor_count, self._queue.count_rejected, self.clock)


def _check(frames: Sequence[Frame], geometries: Sequence[FrameGeometry]) -> None:
    if len(geometries) != len(frames):
        raise EncoderError(f"The encoder gave {len(geometries)} geometries for {len(frames)} frames.")
    for frame, geometry in zip(frames, geometries, strict=True):
        points, confidence, pose = geometry.points_scene, geometry.confidence, geometry.scene_from_cam
        if points.shape != (*confidence.shape, 3) or confidence.ndim != 2:
            raise EncoderError(
                f"The encoder gave points {list(points.shape)} and confidence {list(confidence.shape)} for frame "
                f"{frame.stamp_ns}; expected [h, w, 3] and [h, w]."
            )
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise EncoderError(
                f"The encoder gave a camera pose that is not a finite [4, 4] for frame {frame.stamp_ns}."
            )
