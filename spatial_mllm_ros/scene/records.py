"""What a scene reports: its selection, its status, and where its frames are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.geometry.cameras import Intrinsics


@dataclass(frozen=True)
class Selection:
    """The current evidence set.

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


@dataclass(frozen=True, eq=False)
class PlacedFrame:
    """Where a frame was taken, without its points.

    Attributes:
        scene_from_cam: float64 [4, 4], camera-to-scene.
        intrinsics: the camera of the point map the encoder gave.
        fine_keys: unique voxel keys int64 [n], ascending, that the frame sees on the finest grid (``scene.voxels``),
            without those of which newer frames have shown that they have gone.
        is_keyframe: held beyond the ring.
    """

    stamp_ns: int
    scene_from_cam: np.ndarray
    intrinsics: Intrinsics
    scale_source: ScaleSource
    fine_keys: np.ndarray
    is_keyframe: bool
