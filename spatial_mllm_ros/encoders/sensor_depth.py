"""Geometry from a depth camera and known camera poses: metric, exact, and without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.errors import ConfigurationError, EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.unprojection import sampled_intrinsics, to_scene, unproject_depth


class SensorDepthEncoder:
    """Unprojects each frame's depth image with its intrinsics and places it by its pose.

    Frames do not depend on each other, so no anchors are used; any number of frames may be given at once.

    Args:
        pixel_stride: every n-th pixel of the depth image in both directions.
        max_depth_m: farther readings are left out (noise of structured-light sensors grows with the square).
    """

    name = "sensor-depth"
    window_size = 1
    anchor_count = 0

    def __init__(self, pixel_stride: int = 4, max_depth_m: float = 6.0) -> None:
        if pixel_stride < 1:
            raise ConfigurationError(f"SensorDepthEncoder.pixel_stride is {pixel_stride}; it must be at least 1.")
        if not (np.isfinite(max_depth_m) and max_depth_m > 0):
            raise ConfigurationError(f"SensorDepthEncoder.max_depth_m is {max_depth_m}; it must be finite and above 0.")
        self._stride = pixel_stride
        self._max_depth_m = np.float32(max_depth_m)

    @staticmethod
    def missing(frame: Frame) -> list[str]:
        """What ``frame`` lacks for this encoder: any of "depth", "pose", "intrinsics"; empty when it can be used."""
        parts = {"depth": frame.depth_m, "pose": frame.scene_from_cam, "intrinsics": frame.intrinsics}
        return [name for name, part in parts.items() if part is None]

    def encode(self, frames: Sequence[Frame], anchors: Sequence[Anchor] = ()) -> list[FrameGeometry]:
        """See ``GeometryEncoder``. Confidence is 1 where 0 < depth <= max_depth_m, else 0; anchors are not used.

        Raises:
            EncoderError: a frame lacks its depth image, pose or intrinsics.
        """
        return [self._encode_one(frame) for frame in frames]

    def _encode_one(self, frame: Frame) -> FrameGeometry:
        if frame.depth_m is None or frame.scene_from_cam is None or frame.intrinsics is None:
            raise EncoderError(
                f"Frame {frame.stamp_ns} ns has no {' and no '.join(self.missing(frame))}; sensor geometry needs "
                "depth, pose and intrinsics. Publish them, or use the VGGT encoder."
            )
        height_px, width_px = frame.depth_m.shape
        camera = frame.intrinsics.resized(width_px, height_px)  # depth of another resolution, same field of view
        points_cam = unproject_depth(frame.depth_m, camera, self._stride)
        z = points_cam[..., 2]
        valid = (z > 0) & (z <= self._max_depth_m)
        points_scene = to_scene(points_cam, frame.scene_from_cam)
        points_scene[~valid] = np.nan
        return FrameGeometry(
            points_scene=points_scene,
            confidence=valid.astype(np.float32),
            scene_from_cam=frame.scene_from_cam,
            intrinsics=sampled_intrinsics(camera, self._stride),
            scale_source=ScaleSource.DEPTH,
        )
