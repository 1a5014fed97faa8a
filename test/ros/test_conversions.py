import math
import re
from array import array
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.msg", reason="the interfaces are not built; run ./dev install")

from geometry_msgs.msg import Pose, Transform
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from spatial_mllm_ros.answering.answer import Answer, ModelIdentity, Status, Timings
from spatial_mllm_ros.answering.deadline_policy import Degradation
from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames.codec import decode_color
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.msg import SpatialAnswer
from spatial_mllm_ros.ros.conversions import (
    answer_message,
    camera_info_message,
    color_of,
    depth_of,
    duration_message,
    intrinsics_of,
    matrix_of,
    stamp_ns,
    time_message,
)

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def image_of(encoding: str, pixels: np.ndarray, padding: int = 0) -> Image:
    height = pixels.shape[0]
    rows = pixels.reshape(height, -1).view(np.uint8)
    padded = np.hstack([rows, np.full((height, padding), 99, np.uint8)])
    width = pixels.shape[1]
    return Image(height=height, width=width, encoding=encoding, step=padded.shape[1], data=array("B", padded.tobytes()))


def test_stamps_and_durations_survive_the_way_there_and_back():
    for nanoseconds in (1, 999_999_999, 1_000_000_000, 1_795_000_000_123_456_789):
        assert stamp_ns(time_message(nanoseconds)) == nanoseconds
    assert (duration_message(2_500_000_000).sec, duration_message(2_500_000_000).nanosec) == (2, 500_000_000)


@pytest.mark.parametrize("encoding", CHANNELS)
def test_every_colour_encoding_gives_the_same_picture_in_rgb(encoding):
    rgb = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    if encoding == "mono8":
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
        sent = rgb[..., 0]
    else:
        sent = rgb[..., ::-1] if encoding.startswith("bgr") else rgb
        if CHANNELS[encoding] == 4:
            sent = np.concatenate([sent, np.full((5, 7, 1), 7, np.uint8)], axis=2)
    message = image_of(encoding, np.ascontiguousarray(sent), padding=5)
    out = np.zeros((5, 7, 3), np.uint8)
    assert color_of(message, out) is out
    np.testing.assert_array_equal(out, rgb)


@pytest.mark.parametrize("encoding", CHANNELS)
def test_cv_bridge_gives_the_same_picture_as_our_decoder(encoding):
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not on the Python index")
    pixels = np.random.default_rng(2).integers(0, 256, (6, 9, CHANNELS[encoding]), dtype=np.uint8)
    message = image_of(encoding, pixels)
    ours = decode_color(encoding, 6, 9, message.step, 0, message.data)
    np.testing.assert_array_equal(cv_bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"), ours)


def test_depth_in_millimetres_and_in_metres_is_the_same_depth():
    metres = np.array([[0.0, 1.25], [3.0, 0.5], [2.0, 65.535]], np.float32)
    millimetres = image_of("16UC1", (metres * 1000).round().astype(np.uint16))
    floats = image_of("32FC1", np.where(metres > 60, np.inf, metres).astype(np.float32))
    expected = np.where((metres > 0) & (metres < 60), metres, np.nan)
    np.testing.assert_allclose(depth_of(millimetres), expected, atol=1e-6)
    np.testing.assert_allclose(depth_of(floats), expected)


def test_a_calibration_of_another_size_is_scaled_with_the_pixel_centres():
    info = CameraInfo(height=480, width=640, k=[585.0, 0.0, 319.5, 0.0, 580.0, 239.5, 0.0, 0.0, 1.0])
    camera = intrinsics_of(info, width_px=320, height_px=240)
    assert (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px) == (292.5, 290.0, 159.5, 119.5)


def test_a_camera_survives_the_way_into_a_message_and_back():
    camera = Intrinsics(585.0, 580.0, 319.5, 239.25, 640, 480)
    header = Header(stamp=time_message(1_000_000_007), frame_id="camera_optical")
    info = camera_info_message(camera, header)
    assert intrinsics_of(info, width_px=640, height_px=480) == camera
    assert (stamp_ns(info.header.stamp), info.header.frame_id) == (1_000_000_007, "camera_optical")
    assert not any(info.d)
    np.testing.assert_array_equal(np.reshape(info.p, (3, 4))[:, :3], camera.matrix())
    np.testing.assert_array_equal(np.reshape(info.r, (3, 3)), np.eye(3))


@pytest.mark.parametrize("k", [[0.0] * 9, [math.nan] + [1.0] * 8])
def test_a_camera_that_is_not_calibrated_is_refused_with_the_remedy(k):
    with pytest.raises(FrameRejectedError, match="calibrate the camera"):
        intrinsics_of(CameraInfo(height=480, width=640, k=k), width_px=640, height_px=480)


def test_a_calibration_of_another_field_of_view_is_refused():
    info = CameraInfo(height=720, width=1280, k=[900.0, 0.0, 639.5, 0.0, 900.0, 359.5, 0.0, 0.0, 1.0])
    with pytest.raises(FrameRejectedError, match="1280x720 but the image is 640x480"):
        intrinsics_of(info, width_px=640, height_px=480)


def test_a_pose_and_a_transform_give_the_same_matrix():
    pose, transform = Pose(), Transform()
    half = math.sqrt(0.5)
    for rotation in (pose.orientation, transform.rotation):
        rotation.z, rotation.w = half, half  # a quarter turn to the left around z
    for place in (pose.position, transform.translation):
        place.x, place.y, place.z = 1.0, 2.0, 3.0
    matrix = matrix_of(pose)
    np.testing.assert_allclose(matrix @ [1.0, 0.0, 0.0, 1.0], [1.0, 3.0, 3.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(matrix_of(transform), matrix)


@pytest.mark.parametrize("w", [0.0, 0.5, math.nan])
def test_a_quaternion_that_is_no_rotation_is_refused(w):
    pose = Pose()
    pose.orientation.w = w
    with pytest.raises(FrameRejectedError, match="quaternion"):
        matrix_of(pose)


def test_the_status_numbers_of_the_message_are_those_of_the_code():
    constants = {name: getattr(SpatialAnswer, f"STATUS_{name}") for name in Status.__members__}
    assert constants == {status.name: int(status) for status in Status}
    assert sum(name.startswith("STATUS_") for name in dir(SpatialAnswer)) == len(Status)


def test_an_answer_becomes_a_message_without_losing_anything():
    answer = Answer(
        Status.OK,
        text="2.5",
        value=2.5,
        unit="m",
        confidence=0.75,
        scale_source=ScaleSource.DEPTH,
        evidence_stamps_ns=(5, 1_000_000_007),
        epoch=3,
        newest_frame_age_ns=250_000_000,
        model=ModelIdentity("tiny", "ab" * 32, "Spatial-MLLM v1.1", "apache-2.0", True),
        timings=Timings(1, 2, 3, 4, 5_000_000_006),
    )
    message = answer_message(answer, "how far?", "odom")
    assert (message.status, message.question, message.text, message.has_value, message.value) == (
        SpatialAnswer.STATUS_OK,
        "how far?",
        "2.5",
        True,
        2.5,
    )
    assert (message.unit, message.choice, message.confidence, message.scale_source) == ("m", -1, 0.75, "depth")
    assert [stamp_ns(stamp) for stamp in message.evidence] == [5, 1_000_000_007]
    assert (stamp_ns(message.header.stamp), message.header.frame_id, message.epoch) == (1_000_000_007, "odom", 3)
    assert (message.model, message.model_licence, message.random_weights) == ("tiny", "apache-2.0", True)
    assert (message.timings.total.sec, message.timings.total.nanosec) == (5, 6)


def test_an_answer_says_where_its_context_comes_from_and_what_was_given_up():
    answer = Answer(
        Status.OK, text="2.5", context="warm", context_age_ns=1_250_000_000, degradation=Degradation.FEWER_FRAMES
    )
    message = answer_message(answer, "how far?", "odom")
    assert (message.context, message.degradation) == ("warm", "fewer_frames")
    assert (message.context_age.sec, message.context_age.nanosec) == (1, 250_000_000)
    refused = answer_message(Answer(Status.BUSY), "how far?", "odom")
    assert (refused.context, refused.degradation) == ("", "no_text")


def test_the_degradations_of_the_message_are_those_of_the_code():
    source = (Path(__file__).resolve().parents[2] / "msg" / "SpatialAnswer.msg").read_text()
    listed = re.search(r"^string degradation .*?: (.*)$", source, re.MULTILINE).group(1)
    assert listed.split(", ") == [degradation.value for degradation in Degradation]


def test_a_choice_becomes_its_index_and_no_value_is_not_zero():
    message = answer_message(Answer(Status.OK, text="A", choice=0), "which?", "odom")
    assert (message.choice, message.has_value) == (0, False)
