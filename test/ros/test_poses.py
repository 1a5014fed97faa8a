"""tf2_ros is not on the Python index, so a stand-in with the same interface takes its place."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from geometry_msgs.msg import TransformStamped

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.ros import poses
from spatial_mllm_ros.ros.poses import PoseUnavailableError, TfPoses


class TransformException(Exception):  # noqa: N818 (the name that tf2 gives it)
    pass


class StandIn:
    """The part of tf2_ros that is used; knows odom <- camera, one metre along x per second."""

    TransformException = TransformException

    class Buffer:
        def lookup_transform(self, target_frame, source_frame, time):
            if (target_frame, source_frame) != ("odom", "camera_optical"):
                raise TransformException(f'"{source_frame}" passed to lookupTransform does not exist')
            transform = TransformStamped()
            transform.transform.translation.x = time.nanoseconds / 1e9
            transform.transform.rotation.w = 1.0
            return transform

    class TransformListener:
        def __init__(self, buffer, node):
            assert node == "the node"


def test_without_tf2_the_error_names_what_to_install_and_the_other_way(monkeypatch):
    monkeypatch.setattr(poses, "tf2_ros", None)
    with pytest.raises(ConfigurationError, match=r"tf2_ros_py.*topic"):
        TfPoses("the node", "odom")


def test_the_pose_is_that_of_the_camera_in_the_scene_at_the_stamp(monkeypatch):
    monkeypatch.setattr(poses, "tf2_ros", StandIn)
    pose = TfPoses("the node", "odom").scene_from_cam(2_500_000_000, "camera_optical")
    np.testing.assert_allclose(pose[:3, 3], [2.5, 0.0, 0.0])


def test_a_missing_transform_names_both_frames_and_may_still_come(monkeypatch):
    monkeypatch.setattr(poses, "tf2_ros", StandIn)
    with pytest.raises(PoseUnavailableError, match="'rear_camera' to 'odom'") as caught:
        TfPoses("the node", "odom").scene_from_cam(1, "rear_camera")
    assert not caught.value.final
