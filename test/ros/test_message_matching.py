"""Messages to frames in one process: what waits, what is matched, what is rejected and why."""

from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.msg", reason="the interfaces are not built; run ./dev install")

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, Image

from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.ros.conversions import time_message
from spatial_mllm_ros.ros.message_matching import FrameAssembler
from spatial_mllm_ros.ros.poses import TopicPoses
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

MS = 1_000_000
HEIGHT, WIDTH = 6, 8


class Rig:
    def __init__(self, *, needs_depth=False, with_poses=False, rate_hz=0.0):
        self.scene = Scene(SceneConfig(rate_hz=rate_hz), FakeGeometryEncoder())
        self.poses = TopicPoses("map", 20 * MS) if with_poses else None
        self.added = 0
        self.assembler = FrameAssembler(
            self.scene,
            needs_depth=needs_depth,
            poses=self.poses,
            slop_ns=20 * MS,
            wait_ns=500 * MS,
            on_frame=self._count,
        )

    def _count(self):
        self.added += 1

    @property
    def counts(self):
        return self.scene.status().counts

    def color(self, at_ms, fill=1, encoding="rgb8"):
        pixels = np.full((HEIGHT, WIDTH, 3), fill, np.uint8)
        self.assembler.on_color(self._image(at_ms, pixels, encoding))

    def depth(self, at_ms, millimetres=1500):
        self.assembler.on_depth(self._image(at_ms, np.full((HEIGHT, WIDTH), millimetres, np.uint16), "16UC1"))

    def info(self, fx=7.0):
        k = [fx, 0.0, 3.5, 0.0, fx, 2.5, 0.0, 0.0, 1.0]
        self.assembler.on_camera_info(CameraInfo(height=HEIGHT, width=WIDTH, k=k))

    def pose(self, at_ms, x=0.0, frame_id="map", w=1.0):
        message = PoseStamped()
        message.header.frame_id, message.header.stamp = frame_id, time_message(at_ms * MS)
        message.pose.position.x, message.pose.orientation.w = x, w
        self.assembler.on_pose(message)

    @staticmethod
    def _image(at_ms, pixels, encoding):
        step = pixels.nbytes // HEIGHT
        message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=step, data=array("B", pixels.tobytes()))
        message.header.stamp = time_message(at_ms * MS)
        message.header.frame_id = "camera_optical"
        return message

    def frames(self):
        self.scene.process()
        return self.scene.snapshot.evidence.frames


def test_a_plain_camera_needs_nothing_but_its_images():
    rig = Rig()
    rig.color(1000, fill=9)
    frame = rig.frames()[0]
    assert (frame.stamp_ns, frame.camera_frame_id, frame.depth_m, frame.intrinsics) == (
        1000 * MS,
        "camera_optical",
        None,
        None,
    )
    assert (frame.rgb == 9).all()


def test_a_colour_image_waits_for_its_depth_and_pose_in_any_order():
    rig = Rig(needs_depth=True, with_poses=True)
    rig.info()
    rig.color(1000)
    rig.depth(1010)
    assert rig.added == 0
    rig.pose(995, x=3.0)
    assert rig.added == 1
    frame = rig.frames()[0]
    assert frame.scene_from_cam[0, 3] == 3.0
    assert np.allclose(frame.depth_m, 1.5)
    assert frame.intrinsics.fx_px == 7.0


def test_images_without_depth_are_counted_once_newer_ones_show_that_it_will_not_come():
    rig = Rig(needs_depth=True)
    rig.info()
    rig.color(1000)
    rig.color(1100)
    rig.depth(1100)  # the depth of the second: that of the first is lost
    assert rig.added == 1
    assert rig.counts["no_depth"] == 1
    assert "input.depth" in rig.assembler.last_reason


def test_a_silent_depth_camera_does_not_hold_images_for_ever():
    rig = Rig(needs_depth=True)
    rig.info()
    for index in range(10):
        rig.color(1000 + 100 * index)
    assert rig.counts["no_depth"] == 5  # all that are older than the wait of 500 ms


def test_depth_without_calibration_is_rejected_with_the_topic_to_check():
    rig = Rig(needs_depth=True)
    rig.depth(1000)
    rig.color(1000)
    assert rig.counts["no_camera_info"] == 1
    assert "camera_info" in rig.assembler.last_reason


def test_a_zero_calibration_is_counted_by_its_cause():
    rig = Rig(needs_depth=True)
    rig.info(fx=0.0)
    rig.depth(1000)
    rig.color(1000)
    assert rig.counts["camera_info"] == 1


def test_a_pose_in_another_frame_than_the_scene_is_rejected_naming_both():
    rig = Rig(with_poses=True)
    rig.pose(1000, frame_id="base_link")
    assert rig.counts["pose_frame"] == 1
    assert "'base_link'" in rig.assembler.last_reason
    assert "'map'" in rig.assembler.last_reason


def test_a_broken_image_costs_only_itself():
    rig = Rig()
    rig.color(1000, encoding="yuv422")
    rig.color(1100)
    assert rig.counts["encoding"] == 1
    assert rig.added == 1


def test_duplicates_are_counted_and_a_jump_back_starts_anew():
    rig = Rig()
    rig.color(5000)
    rig.color(5000)
    assert rig.counts["stamp"] == 1
    rig.color(2000)
    assert rig.scene.epoch == 1
    assert [frame.stamp_ns for frame in rig.frames()] == [2000 * MS]


def test_thinned_images_are_not_even_decoded():
    rig = Rig(rate_hz=2.0)
    rig.color(1000)
    rig.color(1100, encoding="this would be rejected if anybody looked")
    assert rig.counts == {"thinned": 1}


def test_a_frame_is_decoded_straight_into_memory_of_the_ring():
    rig = Rig()
    rig.color(1000)
    rgb = rig.frames()[0].rgb
    assert not rgb.flags.owndata
    assert rig.scene.status().pixel_bytes == rgb.nbytes
