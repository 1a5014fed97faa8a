"""Where the pose of the camera at the stamp of an image comes from: a topic, or tf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.time import Time

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError, SpatialMllmError
from spatial_mllm_ros.frames.stamp_index import StampIndex
from spatial_mllm_ros.ros.conversions import matrix_of, stamp_ns

if TYPE_CHECKING:
    from rclpy.node import Node

try:
    import tf2_ros
except ImportError:  # it is not on the Python index
    tf2_ros = None

_HELD_POSES = 64  # for colour images still to come


class PoseUnavailableError(SpatialMllmError):
    """The camera's pose at a stamp is not known; ``final`` when waiting longer will not help."""

    code = "POSE_UNAVAILABLE"

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


class PoseSource(Protocol):
    """Poses of a camera's optical frame in the scene frame."""

    def scene_from_cam(self, stamp_ns: int, camera_frame_id: str) -> NDArray[np.float64]:
        """The camera-to-scene matrix [4, 4] at ``stamp_ns``; raises PoseUnavailableError."""
        ...


class TopicPoses:
    """The poses of one camera from a PoseStamped topic: the nearest one in time within ``slop_ns``."""

    def __init__(self, scene_frame: str, slop_ns: int) -> None:
        self._scene_frame = scene_frame
        self._slop_ns = slop_ns
        self._poses: StampIndex[NDArray[np.float64]] = StampIndex(_HELD_POSES)

    def add(self, message: PoseStamped) -> None:
        """Keeps one pose; FrameRejectedError where it is malformed or in another frame."""
        if message.header.frame_id not in ("", self._scene_frame):
            raise FrameRejectedError(
                "pose_frame",
                f"The camera pose is in frame {message.header.frame_id!r} but the scene frame is "
                f"{self._scene_frame!r}; set the parameter scene_frame to the frame of the poses.",
            )
        self._poses.add(stamp_ns(message.header.stamp), matrix_of(message.pose))

    def scene_from_cam(self, stamp_ns: int, camera_frame_id: str) -> NDArray[np.float64]:
        """See PoseSource; the topic belongs to one camera, so ``camera_frame_id`` serves the message only."""
        pose = self._poses.nearest(stamp_ns, self._slop_ns)
        if pose is None:
            raise PoseUnavailableError(
                f"No camera pose within {self._slop_ns / 1e6:.0f} ms of the image of {camera_frame_id!r}; check the "
                "topic 'camera_pose', or raise input.match_slop_s.",
                final=self._poses.newest_ns > stamp_ns + self._slop_ns,
            )
        return pose


class TfPoses:
    """The poses of camera frames from tf2, which interpolates them at the stamp of the image."""

    def __init__(self, node: Node, scene_frame: str) -> None:
        """Starts to listen on /tf and /tf_static.

        Raises:
            ConfigurationError: tf2_ros is not installed.
        """
        if tf2_ros is None:
            raise ConfigurationError(
                "input.pose_source is 'tf' but tf2_ros is not installed; install the ROS package tf2_ros_py, or "
                "publish the camera's pose and set input.pose_source to 'topic'."
            )
        self._scene_frame = scene_frame
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def scene_from_cam(self, stamp_ns: int, camera_frame_id: str) -> NDArray[np.float64]:
        """See PoseSource."""
        try:
            transform = self._buffer.lookup_transform(self._scene_frame, camera_frame_id, Time(nanoseconds=stamp_ns))
        except tf2_ros.TransformException as error:
            raise PoseUnavailableError(
                f"tf has no transform from {camera_frame_id!r} to {self._scene_frame!r} at the image's stamp: {error}",
                final=False,
            ) from error
        return matrix_of(transform.transform)


def open_pose_source(node: Node, kind: str, *, scene_frame: str, slop_ns: int) -> PoseSource | None:
    """What the parameter ``input.pose_source`` names; None for "none".

    Raises:
        ConfigurationError: it needs what is not installed.
    """
    if kind == "topic":
        return TopicPoses(scene_frame, slop_ns)
    return TfPoses(node, scene_frame) if kind == "tf" else None
