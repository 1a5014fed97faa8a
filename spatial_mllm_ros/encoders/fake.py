"""Synthetic geometry that depends on stamps and poses only: for tests, demonstrations and machines without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.errors import ConfigurationError, EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.unprojection import to_scene

_NS_PER_S = 1_000_000_000
# Box room of the fake world, scene axes x right, y down, z forward at the start; different sides and an off-centre
# start make every wall distinct.
_ROOM_MIN = np.array([-2.0, -1.4, -1.5])
_ROOM_MAX = np.array([3.0, 1.1, 2.7])
_TURN_RAD_PER_S = 0.35
_WALK_RADIUS = np.array([0.9, 0.0, 0.6])
_WALK_RAD_PER_S = 0.11


class FakeGeometryEncoder:
    """A camera that turns while it walks an ellipse inside a box room; rays end on the walls.

    The pixels of a frame are not used. A frame with a pose is placed by its pose (from outside the room it sees the
    walls from outside), a frame without one by its stamp, so equal input gives equal output in any windowing.

    Args:
        height, width: size of the point map.
        window_size, anchor_count: as announced to the scene.
        scale_source: as reported; ``MODEL`` unless a test wants metres.
    """

    name = "fake"

    def __init__(
        self,
        height: int = 24,
        width: int = 32,
        *,
        window_size: int = 4,
        anchor_count: int = 2,
        scale_source: ScaleSource = ScaleSource.MODEL,
    ) -> None:
        if min(height, width, window_size) < 1 or anchor_count < 0:
            raise ConfigurationError(
                "FakeGeometryEncoder takes height, width and window_size from 1 up and anchor_count from 0 up; got "
                f"{height}, {width}, {window_size}, {anchor_count}."
            )
        self.window_size = window_size
        self.anchor_count = anchor_count
        self._scale_source = scale_source
        self._intrinsics = Intrinsics(0.8 * width, 0.8 * width, (width - 1) / 2, (height - 1) / 2, width, height)
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        k = self._intrinsics
        self._rays_cam = np.stack([(u - k.cx_px) / k.fx_px, (v - k.cy_px) / k.fy_px, np.ones(u.shape)], axis=-1)
        off_axis = np.hypot(self._rays_cam[..., 0], self._rays_cam[..., 1])
        # surest in the middle, as with a real encoder, and at least 1 as VGGT's confidence is
        self._confidence = (3.0 - off_axis / off_axis.max()).astype(np.float32)

    def encode(self, frames: Sequence[Frame], anchors: Sequence[Anchor]) -> list[FrameGeometry]:
        """See ``GeometryEncoder``; the scene frame is the world's, so anchors are not needed.

        Raises:
            EncoderError: more frames than window_size, or none.
        """
        if not 1 <= len(frames) <= self.window_size:
            raise EncoderError(f"The fake encoder takes 1 to {self.window_size} frames at once; got {len(frames)}.")
        return [self._encode_one(frame) for frame in frames]

    def _encode_one(self, frame: Frame) -> FrameGeometry:
        pose = _pose_at(frame.stamp_ns) if frame.scene_from_cam is None else frame.scene_from_cam
        directions = self._rays_cam @ pose[:3, :3].T
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.maximum((_ROOM_MIN - pose[:3, 3]) / directions, (_ROOM_MAX - pose[:3, 3]) / directions)
        depth = np.nanmin(np.where(reach > 0, reach, np.nan), axis=-1, initial=np.inf)
        points_cam = (self._rays_cam * np.where(np.isfinite(depth), depth, np.nan)[..., None]).astype(np.float32)
        return FrameGeometry(
            points_scene=to_scene(points_cam, pose),
            confidence=np.where(np.isfinite(depth), self._confidence, np.float32(0)),
            scene_from_cam=pose,
            intrinsics=self._intrinsics,
            scale_source=self._scale_source,
        )


def _pose_at(stamp_ns: int) -> np.ndarray:
    """Camera-to-scene pose [4, 4] of the walk at a time; periods are incommensurable, so views seldom repeat."""
    seconds = (stamp_ns % (100_000 * _NS_PER_S)) / _NS_PER_S  # a stamp of today keeps nanoseconds in a float
    turn, walk = _TURN_RAD_PER_S * seconds, _WALK_RAD_PER_S * seconds
    cos, sin = np.cos(turn), np.sin(turn)
    pose = np.eye(4)
    pose[:3, :3] = [[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]]
    pose[:3, 3] = _WALK_RADIUS * [np.sin(walk), 0.0, np.cos(walk)]
    return pose
