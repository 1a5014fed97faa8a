"""The scene: frames in, geometry from the encoder, the frames that together show the most of it out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from spatial_mllm_ros.encoders.base import ChoosesPerEpoch, FrameGeometry, GeometryEncoder, ReportsFault
from spatial_mllm_ros.errors import EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.frame_queue import FrameIntake
from spatial_mllm_ros.scene.map import EpochMap
from spatial_mllm_ros.scene.records import PlacedFrame, SceneStatus, Selection
from spatial_mllm_ros.scene.saved.content import SceneContent, refuse_what_does_not_fit
from spatial_mllm_ros.scene.stage_clock import Stage, StageClock

_log = logging.getLogger(__name__)
_FRAMES_IN_FLIGHT = 4  # being decoded, or just leased


class Scene:
    """Ring buffer, encoder and selection of one camera; the same for the node, for replay and for tests.

    Three kinds of threads may use it at once: one camera callback (``admits``, ``lease``, ``add``: O(1), they wait for
    no encoder and no selection), one worker (``process``), and any number of readers (``select``, ``status``, ...).

    Memory is bounded by the configuration: pixels by the bounds of ring and keyframes (plus the frames that callers
    hold), the index by the voxels of the frames held. Point maps are kept of the few anchor frames only.

    Args:
        config: bounds and choices.
        encoder: called by ``process`` only, in the worker's thread.
    """

    def __init__(self, config: SceneConfig, encoder: GeometryEncoder) -> None:
        self.config = config
        self._encoder = encoder
        held_elsewhere = config.selected_frames + encoder.window_size + encoder.anchor_count
        self._intake = FrameIntake(config, spare_slots=held_elsewhere + _FRAMES_IN_FLIGHT)
        self._working = threading.Lock()  # one process() at a time
        self._lock = threading.Lock()  # guards what follows; never held while the encoder runs
        self._last_encoder_error = ""
        self._cached: tuple[object, Selection, list[Frame]] | None = None
        self._clock = StageClock()
        self._map = self._new_map(epoch=0)

    @property
    def encoder_name(self) -> str:
        """Name of the encoder, for reports."""
        return self._encoder.name

    # The camera's side

    def lease(self, height_px: int, width_px: int) -> np.ndarray:
        """A buffer uint8 [H, W, 3] to decode the next frame into, so that its pixels are written once.

        It comes back by itself when the frame made of it (or the buffer, if none is) is no longer held by anybody.

        Raises:
            FrameRejectedError: cause ``pool`` or ``size``; counted.
        """
        return self._intake.lease(height_px, width_px)

    def admits(self, stamp_ns: int) -> bool:
        """Whether a frame of this stamp would be taken: ask before decoding. A refusal is counted here."""
        return self._intake.admits(stamp_ns)

    def add(self, frame: Frame) -> bool:
        """Takes a frame in; False when it comes sooner after the last one than the rate allows (counted as thinned).

        A stamp that goes back by more than the configured jump starts a new epoch: everything seen is forgotten. So
        does, for a camera without poses, another image size or camera frame.

        Raises:
            FrameRejectedError: cause ``stamp`` (duplicate, or slightly backward) or ``size``; counted.
        """
        return self._intake.add(frame)

    def count_rejected(self, cause: str) -> None:
        """Counts a message that never became a frame, so that ``status`` shows all losses in one place."""
        self._intake.count(cause)

    def start_epoch(self, reason: str) -> None:
        """Forgets everything seen, for a reason that stamps do not show (the ROS clock jumped, the pose jumped)."""
        self._intake.start_epoch(reason)

    # The worker's side

    @property
    def epoch(self) -> int:
        """Number of the present epoch; it grows at every backward clock jump."""
        return self._intake.figures().epoch

    @property
    def pending(self) -> int:
        """Frames that wait for the encoder."""
        return self._intake.figures().pending

    def process(self, max_calls: int | None = None) -> int:
        """Encodes waiting frames, oldest first, in windows of what is there up to the encoder's size.

        An ``EncoderError`` does not leave this function: the window is tried again in halves, as one bad frame (or too
        little memory) must not cost its neighbours; frames that still fail are counted as ``encoder``, and the error is
        logged and kept in ``status().last_encoder_error``. Results of an epoch that has ended meanwhile are dropped.

        Args:
            max_calls: most windows to take; None for as many as it needs until nothing waits.

        Returns:
            the number of frames that now have a place in the scene.
        """
        placed = calls = 0
        self._intake.warm()
        with self._working:
            while max_calls is None or calls < max_calls:
                epoch, frames = self._intake.take_window(max(1, self._encoder.window_size))
                if not frames:
                    break
                try:
                    placed += self._encode(epoch, frames, first_try=True)
                finally:
                    self._intake.window_done()
                calls += 1
        return placed

    def _encode(self, epoch: int, frames: list[Frame], *, first_try: bool) -> int:
        with self._lock:
            current = self._current_map()
            if current.epoch != epoch:
                self._intake.count("epoch", len(frames))
                return 0
            anchors = current.anchors
        try:
            with self._clock.running(Stage.ENCODE):
                geometries = self._encoder.encode(frames, anchors)
            _check(frames, geometries)
        except EncoderError as err:
            self._last_encoder_error = str(err)
            if first_try:
                _log.warning("The %s encoder failed on %d frames: %s", self._encoder.name, len(frames), err)
            if len(frames) == 1:
                self._intake.count("encoder")
                return 0
            middle = len(frames) // 2
            return sum(self._encode(epoch, part, first_try=False) for part in (frames[:middle], frames[middle:]))
        if first_try:
            self._last_encoder_error = ""
        with self._lock:
            current = self._current_map()
            if current.epoch != epoch:
                self._intake.count("epoch", len(frames))
                return 0
            placed = current.place(frames, geometries)
            self._current_map()  # a frame may have left the ring while it was being encoded
            return placed

    def content(self) -> SceneContent:
        """All that is known at this moment but for the frames that wait; waits for a window that is being encoded."""
        with self._working, self._lock:
            while True:  # until no frame has left the ring, and no epoch has ended, between the two looks
                current = self._current_map()
                epoch, ring = self._intake.tried()
                if epoch == current.epoch and current.recent_stamps_ns() <= {f.stamp_ns for f in ring}:
                    return current.content(ring, waiting=self._intake.figures().pending)

    def take_over(self, content: SceneContent, reason: str) -> int:
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
        with self._working, self._lock:
            refuse_what_does_not_fit(content, self.config, self._encoder.anchor_count, self._intake.newest())
            taking = self._new_map(epoch=0)
            taking.take_over(content)
            taking.epoch = self._intake.take_over(content.ring, content.keyframes, reason)
            self._map, self._cached, self._last_encoder_error = taking, None, ""
            if isinstance(self._encoder, ChoosesPerEpoch):
                self._encoder.forget_choice()
            return taking.epoch

    # The readers' side

    def select(self) -> Selection:
        """The frames held that together show the most of the scene; computed again only after something changed.

        When too few frames add voxels, those that add most on a finer grid follow, then those farthest in time, then
        frames in the ring that the encoder could not place. Frames that still wait for it are not looked at.
        """
        return self.evidence()[0]

    def evidence(self) -> tuple[Selection, list[Frame]]:
        """``select`` and its frames, in time order, of one moment."""
        with self._lock:
            current = self._current_map()
            epoch, tried = self._intake.tried()
            placed = current.frames()
            k = self.config.selected_frames
            # frames without geometry matter only while there are too few others
            fill = len(placed) < k and epoch == current.epoch
            others = [f for f in tried if not current.is_recent(f.stamp_ns)] if fill else []
            key = (current.epoch, current.revision, tuple(f.stamp_ns for f in others))
            if self._cached is None or self._cached[0] != key:
                frames = sorted([*placed, *others], key=lambda f: f.stamp_ns)
                with self._clock.running(Stage.SELECT):
                    selection = current.choose([f.stamp_ns for f in frames], k)
                chosen = set(selection.stamps_ns)
                self._cached = (key, selection, [f for f in frames if f.stamp_ns in chosen])
            return self._cached[1], list(self._cached[2])

    def selection_frames(self, selection: Selection) -> list[Frame]:
        """The frames of a selection, in time order; those that have been let go since are missing."""
        with self._lock:
            if self._cached is not None and self._cached[1] == selection:
                return list(self._cached[2])
            current = self._current_map()
            epoch, ring = self._intake.held()
            if not epoch == current.epoch == selection.epoch:
                return []
            held = {f.stamp_ns: f for f in [*ring, *current.frames()]}
            return [held[stamp_ns] for stamp_ns in selection.stamps_ns if stamp_ns in held]

    def status(self) -> SceneStatus:
        """What is held and what was left out."""
        with self._lock:
            current = self._current_map()
            figures = self._intake.figures()
            return SceneStatus(
                epoch=figures.epoch,
                ring_frames=figures.ring_frames,
                keyframes=current.keyframe_count,
                pixel_bytes=figures.ring_bytes + current.keyframe_bytes,
                index_bytes=current.index_bytes,
                newest_stamp_ns=figures.newest_stamp_ns,
                pending=figures.pending,
                counts=figures.counts,
                last_encoder_error=self._last_encoder_error,
                scale_source=current.scale_source,
                encoder_fault=self._encoder.fault if isinstance(self._encoder, ReportsFault) else "",
            )

    def spent_ns(self) -> Mapping[Stage, int]:
        """Nanoseconds spent per stage since the scene was made, of all epochs together."""
        return self._clock.spent_ns()

    def placed(self) -> list[PlacedFrame]:
        """Where the frames held were taken, in time order."""
        with self._lock:
            return self._current_map().records()

    def occupied_voxels(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres float32 [n, 3] of the voxels seen, scene frame, and by how many held frames each, int32 [n]."""
        with self._lock:
            return self._current_map().occupied()

    def grid(self) -> tuple[float, int]:
        """Edge length of the finest voxels (0 while nothing is placed), and the level of the present grid.

        The present grid's voxels are 2^level times as long; ``coarsen(record.fine_keys, level)`` gives a frame's.
        """
        with self._lock:
            return self._current_map().grid

    def covered_voxels(self, stamps_ns: Iterable[int]) -> int:
        """How many voxels of the present grid the frames see together; frames without geometry see none."""
        with self._lock:
            return self._current_map().covered(stamps_ns)

    def _current_map(self) -> EpochMap:
        """The map, brought up to the ring: a new one after an epoch's end, without the frames that have left since."""
        epoch, oldest_ns = self._intake.horizon()
        if epoch != self._map.epoch:
            self._map = self._new_map(epoch)
            self._cached = None
        if self._intake.ring_was_set_aside():
            self._map.retire_all()
        self._map.retire_before(oldest_ns)
        return self._map

    def _new_map(self, epoch: int) -> EpochMap:
        return EpochMap(self.config, epoch, self._encoder.anchor_count, self._intake.count, self._clock)


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
