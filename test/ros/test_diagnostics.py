"""Levels, names and values of /diagnostics."""

from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from diagnostic_msgs.msg import DiagnosticStatus

from spatial_mllm_ros.ros.diagnostics import camera_status, model_status, scene_status
from spatial_mllm_ros.scene.records import SceneStatus

SECOND_NS = 1_000_000_000
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
QUIET = SceneStatus(
    epoch=0,
    ring_frames=3,
    keyframes=1,
    pixel_bytes=100,
    index_bytes=10,
    newest_stamp_ns=100 * SECOND_NS,
    pending=2,
    counts={},
    last_encoder_error="",
    scale_source=None,
)


def camera(status=QUIET, *, now_s=100.1, topics=(), received=5, waiting=1, last_reason=""):
    return camera_status(
        "/robot/spatial_node",
        status,
        received=received,
        waiting=waiting,
        last_reason=last_reason,
        now_stamp_ns=int(now_s * SECOND_NS),
        incompatible_topics=topics,
    )


def values(status):
    return {pair.key: pair.value for pair in status.values}


def test_a_status_is_named_by_node_and_task_and_belongs_to_no_device():
    statuses = [
        camera(),
        scene_status("/robot/spatial_node", QUIET),
        model_status("/robot/spatial_node", "", "", "", 0),
    ]
    assert [status.name for status in statuses] == [f"/robot/spatial_node: {t}" for t in ("camera", "scene", "model")]
    assert {status.hardware_id for status in statuses} == {"none"}


@pytest.mark.parametrize(
    ("arguments", "level", "said"),
    [
        ({}, OK, "Frames arrive"),
        ({"now_s": 102}, WARN, "2.0 s old"),
        ({"now_s": 109}, ERROR, "9.0 s old; check the camera"),
        ({"now_s": 0}, WARN, "/clock has not started"),
        ({"topics": ("/depth", "/camera")}, ERROR, "Incompatible QoS on /camera, /depth; set input.reliability"),
        ({"status": replace(QUIET, newest_stamp_ns=0), "last_reason": "Why."}, WARN, "5 images received. Why."),
        ({"status": replace(QUIET, counts={"encoding": 4}), "last_reason": "Why."}, WARN, "4 images rejected. Why."),
        ({"status": replace(QUIET, counts={"thinned": 4})}, OK, "Frames arrive"),
    ],
)
def test_the_level_of_the_camera_follows_its_newest_frame_and_the_message_says_what_to_do(arguments, level, said):
    status = camera(**arguments)
    assert (status.level, said in status.message) == (level, True), status.message


def test_the_values_of_the_camera_count_what_waits_and_what_was_rejected():
    status = camera(replace(QUIET, counts={"encoding": 4, "thinned": 9}))
    assert values(status) == {"received": "5", "waiting": "1", "age_s": "0.100", "rejected.encoding": "4"}


def test_a_failure_of_the_encoder_is_an_error_of_the_scene():
    assert scene_status("n", QUIET).level == OK
    assert values(scene_status("n", QUIET))["pending_frames"] == "2"
    failed = scene_status("n", replace(QUIET, last_encoder_error="no memory"))
    assert (failed.level, failed.message) == (ERROR, "The spatial encoder failed: no memory")
    assert scene_status("n", replace(QUIET, encoder_fault="It runs in torch now.")).level == ERROR


@pytest.mark.parametrize(("state", "level"), [("active", OK), ("inactive", WARN), ("unconfigured", WARN)])
def test_only_an_active_node_is_ok(state, level):
    status = model_status("n", state, "tiny", "apache-2.0", 2)
    assert (status.level, state in status.message) == (level, True)
    assert values(status) == {"model": "tiny", "weights_licence": "apache-2.0", "open_questions": "2"}
