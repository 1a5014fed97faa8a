"""How the live runs start their node: with the session that they are to run."""

from dataclasses import replace

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.msg", reason="the interfaces are not built; run ./dev install")

from spatial_mllm_ros.answering.context import ContextConfig  # noqa: E402
from spatial_mllm_ros.answering.setup import SessionConfig  # noqa: E402
from spatial_mllm_ros.errors import ConfigurationError  # noqa: E402
from spatial_mllm_ros.playback.live_run import node_command, node_parameters  # noqa: E402
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips  # noqa: E402
from spatial_mllm_ros.ros.node import SpatialNode  # noqa: E402
from spatial_mllm_ros.ros.parameters import NodeParameters  # noqa: E402
from spatial_mllm_ros.scene.config import SceneConfig  # noqa: E402

REPLAYED = SessionConfig(
    checkpoint="/models/mine",
    device="cpu",
    threads=3,
    max_new_tokens=7,
    encoder_window=4,
    encoder_anchors=3,
    encoder_image_width_px=84,
    encoder_backend="torch",
    encoder_exports="/exports",
    scene=SceneConfig(ring_frames=9, rate_hz=0.0, selected_frames=4, age_discount=0.0, seen_through_frames=0),
    context=ContextConfig(refresh=False, refresh_interval_s=9.0, max_age_s=8.0, cache_bytes=0),
)


@pytest.fixture(scope="module")
def recording():
    return list(make_clips([7], ClipConfig(2, 84, 63))[0].frames())


def test_the_node_of_a_live_replay_makes_the_session_of_the_replay(recording):
    command = node_command(node_parameters(recording, REPLAYED))
    rclpy.init(args=command)
    try:
        node = SpatialNode()
        parameters = NodeParameters.read(node)
        assert node.get_parameter("use_sim_time").value is True
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    of_the_moment = replace(REPLAYED.context, max_changed_fraction=0.0)  # as SpatialSession.ask, which a replay calls
    assert parameters.session_config() == replace(REPLAYED, context=of_the_moment)
    assert (parameters.input.depth, parameters.input.pose_source, parameters.scene_frame) == (True, "topic", "map")


def test_a_recording_without_depth_or_poses_is_played_as_a_plain_camera(recording):
    plain = [replace(frame, depth_m=None) for frame in recording]
    parameters = node_parameters(plain, SessionConfig())
    assert (parameters.input.depth, parameters.input.pose_source) == (False, "none")


def test_a_session_that_the_node_cannot_make_is_refused_before_a_process_starts(recording):
    with pytest.raises(ConfigurationError, match="max_points_per_frame"):
        node_parameters(recording, SessionConfig(scene=SceneConfig(max_points_per_frame=10)))
