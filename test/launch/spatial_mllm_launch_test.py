"""The launch file on a machine with ROS: the node starts, takes frames that are played to it, and answers."""

import array
import time
import unittest

import numpy as np
import pytest

pytest.importorskip("launch_testing", reason="launch_testing is part of a ROS installation, not of the Python index")

import launch_testing.actions
import launch_testing.asserts
import launch_testing.markers
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from spatial_mllm_ros.msg import FrameSelection, SpatialAnswer
from spatial_mllm_ros.ros.environment import share_directory, use_shared_memory_profile
from spatial_mllm_ros.srv import SpatialQuery

WIDTH_PX, HEIGHT_PX = 320, 240
QUESTION = "How many chairs are in this room?"
PATIENCE_S = 120  # the first start writes and loads the model


@pytest.mark.launch_test
@launch_testing.markers.keep_alive
def generate_test_description():
    launch_file = share_directory() / "launch" / "spatial_mllm.launch.py"
    return LaunchDescription(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(launch_file)), launch_arguments={"image": "/head/image_raw"}.items()
            ),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestRunningNode(unittest.TestCase):
    """Against the node as launched, in another process."""

    @classmethod
    def setUpClass(cls):
        use_shared_memory_profile()
        rclpy.init()
        cls.node = rclpy.create_node("launch_test_client")
        cls.images = cls.node.create_publisher(Image, "/head/image_raw", qos_profile_sensor_data)
        cls.selections = []
        cls.node.create_subscription(FrameSelection, "/spatial_node/selection", cls.selections.append, 10)
        cls.client = cls.node.create_client(SpatialQuery, "/spatial_query")
        scenery = np.random.default_rng(7).integers(0, 256, (HEIGHT_PX, 2 * WIDTH_PX, 3), np.uint8)
        cls.views = [np.ascontiguousarray(scenery[:, shift : shift + WIDTH_PX]) for shift in range(0, WIDTH_PX, 32)]

    @classmethod
    def tearDownClass(cls):
        cls.node.destroy_node()
        rclpy.try_shutdown()

    def until(self, condition, what, meanwhile=lambda: None):
        """Spins, doing something every 0.1 s, until the condition holds."""
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"within {PATIENCE_S} s it did not happen: {what}"
            meanwhile()
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def publish_view(self):
        """Publishes the next view: the camera pans over a random pattern."""
        view = self.views[0]
        self.views.append(self.views.pop(0))
        message = Image(height=HEIGHT_PX, width=WIDTH_PX, encoding="rgb8", step=3 * WIDTH_PX)
        message.header.frame_id = "head_camera_optical"
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.data = array.array("B", view.tobytes())
        self.images.publish(message)

    def ask(self):
        """The answer to QUESTION."""
        assert self.client.wait_for_service(PATIENCE_S), "/spatial_query does not exist"
        future = self.client.call_async(SpatialQuery.Request(question=QUESTION))
        self.until(future.done, "an answer", self.publish_view)
        return future.result().answer

    def test_frames_are_selected_and_a_question_is_answered_from_them(self):
        self.until(lambda: any(s.stamps for s in self.selections), "a selection of frames", self.publish_view)
        answer = self.ask()
        assert answer.status in (SpatialAnswer.STATUS_OK, SpatialAnswer.STATUS_UNPARSED), answer.message
        assert answer.question == QUESTION
        assert len(answer.evidence) > 0
        assert answer.header.frame_id == "odom"


@launch_testing.post_shutdown_test()
class TestAfterShutdown(unittest.TestCase):
    """Once the launch has ended."""

    def test_the_node_ended_without_an_error(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
