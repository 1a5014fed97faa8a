import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.msg", reason="the interfaces are not built; run ./dev install")

import yaml
from visualization_msgs.msg import Marker, MarkerArray

from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.ros.markers import (
    EVIDENCE,
    EVIDENCE_ENDS,
    SELECTED,
    VOXELS,
    MarkerOutput,
    last_seen,
    scene_markers,
)
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.records import PlacedFrame
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.voxels import coarsen, pack_cells, voxel_centres

ROOT = Path(__file__).resolve().parents[2]


def placed(stamp_ns, cells, pose=None):
    keys = np.unique(pack_cells(np.array(cells)))
    camera = Intrinsics(100, 50, 60.5, 39.5, 160, 80)
    frame = Frame(stamp_ns, np.zeros((80, 160, 3), np.uint8))
    return PlacedFrame(frame, np.eye(4) if pose is None else pose, camera, ScaleSource.DEPTH, keys)


def markers_of(frames, selected=(), evidence=()):
    array = scene_markers(
        frames, selected, evidence, fine_voxel_size=0.1, level=1, scene_frame="map", stamp_ns=5_000_000_007
    )
    return {marker.ns: marker for marker in array.markers}


def xyz(points):
    return np.array([[p.x, p.y, p.z] for p in points])


def test_voxels_are_cubes_coloured_by_when_they_were_last_seen():
    frames = [placed(1, [[0, 0, 0], [4, 0, 0]]), placed(3, [[8, 0, 0]]), placed(9, [[4, 1, 1]])]
    voxels = markers_of(frames)[VOXELS]
    assert voxels.type == Marker.CUBE_LIST
    assert voxels.scale.x == pytest.approx(0.2)
    assert voxels.header.frame_id == "map"
    assert (voxels.header.stamp.sec, voxels.header.stamp.nanosec) == (5, 7)
    colors = {round(p.x, 3): c for p, c in zip(voxels.points, voxels.colors, strict=True)}
    assert sorted(colors) == pytest.approx([0.1, 0.5, 0.9])
    assert colors[0.5].g > colors[0.9].g > colors[0.1].g  # just seen again, then, long ago
    assert last_seen(frames, 1)[1].tolist() == [1, 9, 3]


def test_a_frustum_starts_at_the_camera_and_opens_as_its_image_does():
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # optical axes of a camera that looks along x
    pose[:3, 3] = 1, 2, 3
    marker = markers_of([placed(1, [[0, 0, 0]]), placed(2, [[9, 9, 9]], pose)], selected=(2, 77))[SELECTED]
    points = xyz(marker.points)
    assert points.shape == (16, 3)
    assert points[0] == pytest.approx([1, 2, 3])
    corners = points[1:8:2]
    depth = corners[:, 0] - 1
    assert depth == pytest.approx(np.full(4, 0.6))
    width, height = np.ptp(corners[:, 1]) / 0.6, np.ptp(corners[:, 2]) / 0.6
    assert (width, height) == pytest.approx((160 / 100, 80 / 50))


def test_evidence_points_from_its_camera_to_what_it_sees():
    pose = np.eye(4)
    pose[0, 3] = -3
    marked = markers_of([placed(4, [[10, 10, 10], [12, 10, 10], [14, 10, 10]], pose)], evidence=(4,))
    assert xyz(marked[EVIDENCE].points) == pytest.approx(np.array([[-3, 0, 0], [1.25, 1.05, 1.05]]))
    assert xyz(marked[EVIDENCE_ENDS].points) == pytest.approx(np.array([[1.25, 1.05, 1.05]]))


def test_what_is_no_longer_there_is_deleted():
    actions = {name: marker.action for name, marker in markers_of([placed(1, [[0, 0, 0]])]).items()}
    assert actions == {
        VOXELS: Marker.ADD,
        SELECTED: Marker.DELETE,
        EVIDENCE: Marker.DELETE,
        EVIDENCE_ENDS: Marker.DELETE,
    }
    assert {marker.action for marker in markers_of([]).values()} == {Marker.DELETE}


class Publisher:
    def __init__(self):
        self.sent = []

    def get_subscription_count(self):
        return 1

    def publish(self, message):
        self.sent.append(message)


def test_markers_are_sent_again_only_after_a_change():
    scene = Scene(SceneConfig(selected_frames=3, rate_hz=0.0), SensorDepthEncoder(pixel_stride=2))
    frames = list(make_clips([7], ClipConfig(4, 96, 72, rate_hz=15.0))[0].frames())
    output = MarkerOutput(Publisher())
    for frame in frames[:3]:
        scene.add(frame)
    scene.process()
    output.publish(scene, "odom")
    output.publish(scene, "odom")
    assert len(output._publisher.sent) == 1
    output.evidence_stamps_ns = (frames[1].stamp_ns,)
    output.publish(scene, "odom")
    scene.add(frames[3])
    scene.process()
    output.publish(scene, "odom")
    assert len(output._publisher.sent) == 3
    by_name = {marker.ns: marker for marker in output._publisher.sent[-1].markers}
    known = scene.snapshot
    keys = np.unique(np.concatenate([coarsen(frame.fine_keys, known.level) for frame in known.placed]))
    centres = voxel_centres(keys, known.fine_voxel_size, known.level)
    assert len(by_name[VOXELS].points) == known.selection.total_voxels == len(keys)
    assert np.sort(xyz(by_name[VOXELS].points), axis=0) == pytest.approx(np.sort(centres, axis=0), abs=1e-5)
    assert len(by_name[SELECTED].points) == 3 * 16


def test_the_node_shows_markers_to_whoever_looks(start_node, ros_client, tmp_path):
    from rclpy.qos import DurabilityPolicy, QoSProfile

    from spatial_mllm_ros.playback.live_run import player_command, running
    from spatial_mllm_ros.recordings.rgbd_folder import write_rgbd_folder

    write_rgbd_folder(tmp_path / "clip", make_clips([7], ClipConfig(12, 96, 72, rate_hz=15.0))[0].frames())
    start_node(
        **{"use_sim_time": True, "scene_frame": "map", "input.depth": True, "input.pose_source": "topic"},
        **{"input.reliability": "reliable", "device": "cpu"},
    )
    received = []
    qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    ros_client.node.create_subscription(MarkerArray, "/spatial_node/markers", received.append, qos)
    with running(player_command(tmp_path / "clip"), tmp_path / "player.log", "player"):
        ros_client.until(lambda: any(m.points for a in received for m in a.markers if m.ns == VOXELS), "voxels")
    last = {marker.ns: marker for marker in received[-1].markers}
    assert last[VOXELS].header.frame_id == "map"
    assert last[SELECTED].points


def test_rviz_and_foxglove_show_topics_that_the_node_has():
    rviz = yaml.safe_load((ROOT / "rviz" / "spatial_mllm.rviz").read_text())
    displays = rviz["Visualization Manager"]["Displays"]
    assert any(d["Class"].endswith("MarkerArray") and d["Topic"]["Value"] == "/spatial_node/markers" for d in displays)
    text = (ROOT / "foxglove" / "spatial_mllm.json").read_text()
    layout = json.loads(text)

    def leaves(part):
        return [part] if isinstance(part, str) else leaves(part["first"]) + leaves(part["second"])

    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])
    source = "".join(path.read_text() for path in (ROOT / "spatial_mllm_ros" / "ros").glob("*.py"))
    for topic in set(re.findall(r'"/(?:spatial_node/)?(\w+)', text)):
        assert f'"~/{topic}"' in source or f'"{topic}"' in source or f'"/{topic}"' in source, topic
