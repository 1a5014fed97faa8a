"""Camera poses from tf, where tf2_ros is installed (it is not on the Python index)."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.time import Time

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.ros.conversions import matrix_of
from spatial_mllm_ros.ros.message_matching import PoseUnavailableError

try:
    import tf2_ros
except ImportError:
    tf2_ros = None


class TfPoses:
    """The pose of a camera frame in the scene frame, interpolated by tf2 at the stamp of the image."""

    def __init__(self, node: Any, scene_frame: str) -> None:
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

    def scene_from_cam(self, stamp_ns: int, camera_frame_id: str) -> np.ndarray:
        """See PoseSource."""
        try:
            transform = self._buffer.lookup_transform(self._scene_frame, camera_frame_id, Time(nanoseconds=stamp_ns))
        except tf2_ros.TransformException as error:
            raise PoseUnavailableError(
                f"tf has no transform from {camera_frame_id!r} to {self._scene_frame!r} at the image's stamp ({error})",
                final=False,
            ) from error
        return matrix_of(transform.transform)
