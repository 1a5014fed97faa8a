"""The scene: frames in, geometry from the encoder, the frames that together show the most of it out."""

from __future__ import annotations

from collections.abc import Mapping

from spatial_mllm_ros.encoders.base import GeometryEncoder, ReportsFault
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.frame_queue import FrameQueue
from spatial_mllm_ros.scene.placer import FramePlacer
from spatial_mllm_ros.scene.records import SceneSnapshot, SceneStatus
from spatial_mllm_ros.scene.saved.content import SceneContent
from spatial_mllm_ros.scene.stage_clock import Stage

_FRAMES_IN_FLIGHT = 4  # being decoded, or just leased


class Scene:
    """Ring buffer, encoder and selection of one camera; the same for the node, for replay and for tests.

    It has three kinds of users, each with a part of its own. Nobody waits for anybody else:

    - the camera's thread adds frames to ``queue`` (O(1));
    - one worker thread calls ``process``, ``content`` and ``restore``;
    - readers in any thread take ``snapshot``, which the worker publishes, and ``status``.

    Memory is bounded by the configuration: pixels by the bounds of ring and keyframes (plus the frames that callers
    hold, and those that leave the ring while the worker is busy), the index by the voxels of the frames held. Point
    maps are kept of the few anchor frames only.

    Args:
        config: bounds and choices.
        encoder: called by ``process`` only, in the worker's thread.
    """

    def __init__(self, config: SceneConfig, encoder: GeometryEncoder) -> None:
        self.config = config
        held_elsewhere = config.selected_frames + encoder.window_size + encoder.anchor_count
        self.queue = FrameQueue(config, spare_slots=held_elsewhere + _FRAMES_IN_FLIGHT)
        self._encoder = encoder
        self._placer = FramePlacer(config, encoder, self.queue)

    @property
    def encoder_name(self) -> str:
        """Name of the encoder, for reports."""
        return self._encoder.name

    def add(self, frame: Frame) -> bool:
        """See ``FrameQueue.add``."""
        return self.queue.add(frame)

    # The worker's side

    def process(self, max_calls: int | None = None) -> int:
        """See ``FramePlacer.process``."""
        return self._placer.process(max_calls)

    def content(self) -> SceneContent:
        """See ``FramePlacer.content``."""
        return self._placer.content()

    def restore(self, content: SceneContent, reason: str) -> int:
        """See ``FramePlacer.restore``."""
        return self._placer.restore(content, reason)

    # The readers' side

    @property
    def epoch(self) -> int:
        """Number of the present epoch; it grows at every backward clock jump."""
        return self.queue.epoch

    @property
    def pending(self) -> int:
        """How many frames wait for the encoder."""
        return self.queue.pending

    @property
    def snapshot(self) -> SceneSnapshot:
        """What was known at the end of the latest ``process``; empty when its epoch has ended since."""
        return self._snapshot_of(self.queue.epoch)

    def status(self) -> SceneStatus:
        """What is held and what was left out: the queue at this moment, the rest as in ``snapshot``."""
        figures = self.queue.figures()
        snapshot = self._snapshot_of(figures.epoch)
        return SceneStatus(
            epoch=figures.epoch,
            ring_frames=figures.ring_frames,
            keyframes=snapshot.keyframes,
            pixel_bytes=figures.ring_bytes + snapshot.keyframe_bytes,
            index_bytes=snapshot.index_bytes,
            newest_stamp_ns=figures.newest_stamp_ns,
            pending=figures.pending,
            counts=figures.counts,
            last_encoder_error=self._placer.last_encoder_error,
            scale_source=snapshot.selection.scale_source,
            encoder_fault=self._encoder.fault if isinstance(self._encoder, ReportsFault) else "",
        )

    def spent_ns(self) -> Mapping[Stage, int]:
        """Nanoseconds spent per stage since the scene was made, of all epochs together."""
        return self._placer.clock.spent_ns()

    def _snapshot_of(self, epoch: int) -> SceneSnapshot:
        """The only way to a snapshot: one of an epoch that has ended is answered from by nobody."""
        published = self._placer.snapshot
        return published if published.epoch == epoch else SceneSnapshot.empty(epoch)
