"""The player as a real process, and this test as the subscriber in another one."""

import os
import signal
import sys

import cv2
import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError, SpatialMllmError
from spatial_mllm_ros.geometry.poses import matrix_from_quaternion
from spatial_mllm_ros.playback.player import PlayerConfig
from spatial_mllm_ros.recordings.rgbd_folder import RgbdFolder, depth_to_millimetres, write_rgbd_folder
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.ros.environment import share_directory

try:
    share_directory()
except SpatialMllmError as error:
    pytest.skip(str(error), allow_module_level=True)

PLAYER = [sys.executable, "-c", "import sys; from spatial_mllm_ros.playback.player import main; sys.exit(main())"]
FRAMES = 8


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("player") / "clip"
    write_rgbd_folder(folder, make_clips([7], ClipConfig(FRAMES, 160, 120, rate_hz=15.0))[0].frames())
    return folder


@pytest.fixture
def received(ros_client):
    """Messages by topic, as they come to subscribers of all topics of the player."""
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

    qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
    # The images last: the player waits for their subscriber, and discovers subscriptions in this order.
    topics = {
        "depth": Image,
        "camera_info": CameraInfo,
        "camera_pose": PoseStamped,
        "image": Image,
        "image/compressed": CompressedImage,
    }
    messages = {topic: [] for topic in topics}
    for topic, kind in topics.items():
        ros_client.node.create_subscription(kind, topic, messages[topic].append, qos)
    return messages


def stamps_ns(messages):
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]


def test_every_frame_arrives_bit_for_bit_with_depth_camera_and_pose(recording, received, ros_client, start_process):
    player = start_process([*PLAYER, str(recording), "--stamps", "original", "--rate", "2"])
    ros_client.until(lambda: player.process.poll() is not None, "the player ends")
    assert player.process.returncode == 0, player.log
    ros_client.until(lambda: len(received["image"]) >= FRAMES, "all images arrive")
    frames = list(RgbdFolder(recording))
    for topic in ("image", "depth", "camera_info", "camera_pose"):
        assert stamps_ns(received[topic]) == [frame.stamp_ns for frame in frames], topic
    for index, frame in enumerate(frames):
        image, depth, info, pose = (received[t][index] for t in ("image", "depth", "camera_info", "camera_pose"))
        assert (image.encoding, image.height, image.width, image.step) == ("rgb8", 120, 160, 480)
        assert bytes(image.data) == frame.rgb.tobytes()
        assert (depth.encoding, depth.step) == ("16UC1", 320)
        assert bytes(depth.data) == depth_to_millimetres(frame.depth_m).tobytes()
        assert np.array_equal(np.reshape(info.k, (3, 3)), frame.intrinsics.matrix())
        turn = pose.pose.orientation
        rotation = matrix_from_quaternion(np.array([turn.x, turn.y, turn.z, turn.w]))
        assert np.allclose(rotation, frame.scene_from_cam[:3, :3], atol=1e-9)
        assert pose.pose.position.y == frame.scene_from_cam[1, 3]
        assert pose.header.frame_id == "map"
        assert image.header.frame_id == "camera_optical_frame"
    assert f"Published {FRAMES} frames of clip" in player.log


def test_compressed_images_loop_with_stamps_of_now_until_a_signal_ends_them(
    recording, received, ros_client, start_process
):
    player = start_process([*PLAYER, str(recording), "--compressed", "--loop", "--rate", "4"])
    wanted = 2 * FRAMES + 1
    ros_client.until(lambda: len(received["image/compressed"]) >= wanted, "two rounds arrive")
    player.process.send_signal(signal.SIGTERM)
    assert player.exit_code() == 0, player.log
    stamps = stamps_ns(received["image/compressed"])
    assert stamps == sorted(set(stamps))
    assert stamps[0] > 1_600_000_000 * 10**9
    assert not received["image"]
    bgr = cv2.imdecode(np.frombuffer(received["image/compressed"][0].data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(bgr[:, :, ::-1].astype(int) - next(iter(RgbdFolder(recording))).rgb).mean() < 4


def test_sigint_while_waiting_ends_the_player_cleanly(recording, ros_client, start_process):
    player = start_process([*PLAYER, str(recording), "--ros-args", "-r", "image:=/nobody/listens"])
    ros_client.until(lambda: ros_client.node.count_publishers("/nobody/listens"), "the player is there")
    player.process.send_signal(signal.SIGINT)
    assert player.exit_code() == 0, player.log
    assert "Traceback" not in player.log


def test_without_a_subscriber_the_player_says_so_and_fails(recording, start_process):
    player = start_process([*PLAYER, str(recording), "--wait-s", "0.2"])
    assert player.exit_code() == 1
    assert "Nobody subscribed to /image within 0.2 s" in player.log


def test_a_subscriber_that_wants_more_reliability_is_named(recording, received, start_process, ros_client):
    player = start_process([*PLAYER, str(recording), "--reliability", "best_effort", "--wait-s", "12"])
    ros_client.until(lambda: player.process.poll() is not None, "the player gives up")
    assert player.process.returncode == 1
    assert "its QoS does not accept 'best_effort'" in player.log
    assert not received["image"]


def test_a_wrong_source_is_one_line(start_process):
    player = start_process([*PLAYER, os.devnull + "_not_there"])
    assert player.exit_code() == 1
    assert "does not exist" in player.log
    assert "Traceback" not in player.log


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(ConfigurationError, match="rate"):
        PlayerConfig(rate=rate)
