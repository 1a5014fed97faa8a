"""What a scene reports: its frames, its evidence set, and the snapshot that holds both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.scene.greedy import largest_gains


@dataclass(frozen=True, eq=False)
class PlacedFrame:
    """A frame that has geometry: where it was taken and which voxels it sees. Its points are not kept.

    Attributes:
        scene_from_cam: float64 [4, 4], camera-to-scene, as the encoder placed it.
        intrinsics: the camera of the point map that the encoder gave.
        fine_keys: unique voxel keys int64 [n], ascending, that the frame sees on the finest grid (``scene.voxels``),
            without those that newer frames have contradicted.
        is_keyframe: held beyond the ring.
        contradicted_voxels: how many of the voxels that it saw newer frames have seen through, so that they were
            cleared.
    """

    frame: Frame
    scene_from_cam: np.ndarray
    intrinsics: Intrinsics
    scale_source: ScaleSource
    fine_keys: np.ndarray
    is_keyframe: bool = False
    contradicted_voxels: int = 0

    @property
    def stamp_ns(self) -> int:
        """Stamp of the frame, which names it within its epoch."""
        return self.frame.stamp_ns


@dataclass(frozen=True)
class Selection:
    """Which frames are selected, and how much of the scene they show.

    Attributes:
        epoch: the epoch of every frame in it.
        stamps_ns: the frames, in time order; min(K, frames held) of them.
        gains: voxels that each of them added when it was picked, in the order of ``stamps_ns``; 0 for frames that
            only fill up.
        covered_voxels, total_voxels: seen by the selected frames together, by all frames held together.
        voxel_size: edge length of these voxels; metres where ``scale_source`` is metric; 0 without geometry.
        scale_source: None while no frame has geometry; the frames are then spread evenly over time.
        newest_stamp_ns: newest frame with geometry; 0 when there is none.
    """

    epoch: int
    stamps_ns: tuple[int, ...] = ()
    gains: tuple[int, ...] = ()
    covered_voxels: int = 0
    total_voxels: int = 0
    voxel_size: float = 0.0
    scale_source: ScaleSource | None = None
    newest_stamp_ns: int = 0


@dataclass(frozen=True)
class EvidenceSet:
    """The frames of a selection, or those of them that are used.

    Attributes:
        frames: in time order.
        gains: of each frame, see ``Selection``.
        other_sizes: frames of the selection that ``of_one_size`` left out.
        left_out: frames that ``thinned`` left out, for lack of time or memory.
    """

    selection: Selection
    frames: tuple[Frame, ...] = ()
    gains: tuple[int, ...] = ()
    other_sizes: int = 0
    left_out: int = 0

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Stamps of the frames."""
        return tuple(frame.stamp_ns for frame in self.frames)

    def of_one_size(self) -> EvidenceSet:
        """Without the frames whose image size differs from that of the newest one, as a video has one size."""
        alike = [i for i, frame in enumerate(self.frames) if frame.rgb.shape == self.frames[-1].rgb.shape]
        return replace(self._part(alike), other_sizes=self.other_sizes + len(self.frames) - len(alike))

    def thinned(self, count: int) -> EvidenceSet:
        """The ``count`` of its frames that show most."""
        kept = largest_gains(self.gains, count)
        return replace(self._part(kept), left_out=self.left_out + len(self.frames) - len(kept))

    def _part(self, indices: list[int]) -> EvidenceSet:
        return replace(self, frames=tuple(self.frames[i] for i in indices), gains=tuple(self.gains[i] for i in indices))


@dataclass(frozen=True, eq=False)
class SceneSnapshot:
    """What is known of the scene at one moment. Nothing in it changes, so any thread may read it without a lock.

    Attributes:
        evidence: the current evidence set. Where too few frames add voxels, the frames follow that add most on a finer
            grid, then those farthest in time, then frames in the ring that the encoder could not place. Frames that
            wait for the encoder are never among them.
        placed: the frames that have geometry, in time order.
        fine_voxel_size: edge length of the finest voxels; 0 while nothing is placed.
        level: the present grid's voxels are 2^level fine voxels long; ``coarsen(placed_frame.fine_keys, level)`` gives
            those that a frame sees.
        keyframes, keyframe_bytes: frames held beyond the ring, and their pixels with depth.
        index_bytes: voxel keys, counts, and the point maps of the anchors.
    """

    evidence: EvidenceSet
    placed: tuple[PlacedFrame, ...] = ()
    fine_voxel_size: float = 0.0
    level: int = 0
    keyframes: int = 0
    keyframe_bytes: int = 0
    index_bytes: int = 0

    @classmethod
    def empty(cls, epoch: int) -> SceneSnapshot:
        """Of an epoch in which nothing has been seen yet."""
        return cls(EvidenceSet(Selection(epoch)))

    @property
    def selection(self) -> Selection:
        """Which frames the evidence set consists of."""
        return self.evidence.selection

    @property
    def epoch(self) -> int:
        """The epoch of all that is in it."""
        return self.selection.epoch


@dataclass(frozen=True)
class GridState:
    """The grid of a scene with geometry.

    Attributes:
        voxel_size: edge of a fine voxel; metres where the scene's scale source is metric.
        level: the present grid's voxels are 2^level fine voxels long.
        frames_since_measured: frames that came since the extent, which the level follows, was measured.
    """

    voxel_size: float
    level: int
    frames_since_measured: int


@dataclass(frozen=True)
class SceneStatus:
    """What a scene holds and what it left out.

    Attributes:
        pixel_bytes: pixels of ring and keyframes, depth included.
        index_bytes: voxel keys, counts, and the point maps of the anchors.
        newest_stamp_ns: newest frame buffered in this epoch; 0 when there is none.
        pending: frames buffered and not encoded yet.
        counts: frames left out since the start, by cause (``thinned``, ``stamp``, ``pool``, ``unprocessed``,
            ``encoder``, ``scale``, ``epoch``, ...).
        last_encoder_error: why the latest window failed; "" when it did not.
        encoder_fault: what has failed inside the encoder while it goes on by other means; "" for nothing.
    """

    epoch: int
    ring_frames: int
    keyframes: int
    pixel_bytes: int
    index_bytes: int
    newest_stamp_ns: int
    pending: int
    counts: Mapping[str, int]
    last_encoder_error: str
    scale_source: ScaleSource | None
    encoder_fault: str = ""
