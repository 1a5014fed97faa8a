"""Scenes saved by one process and loaded by another, through the services."""

import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.srv", reason="the interfaces are not built; run ./dev install")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from spatial_mllm_ros.msg import FrameSelection, SpatialAnswer  # noqa: E402
from spatial_mllm_ros.srv import LoadScene, SaveScene, SpatialQuery  # noqa: E402

SECOND_NS = 1_000_000_000
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ASKED = "How many chairs are in this room?"


def stamps_of(times) -> list[int]:
    return [time.sec * SECOND_NS + time.nanosec for time in times]


def call(client, service_type, name, **fields):
    service = client.node.create_client(service_type, name)
    client.until(service.service_is_ready, f"the service {name} is there")
    future = service.call_async(service_type.Request(**fields))
    client.until(future.done, f"an answer of {name}")
    client.node.destroy_client(service)
    return future.result()


def save(client, directory):
    return call(client, SaveScene, "/spatial_node/save_scene", directory=str(directory))


def load(client, directory):
    return call(client, LoadScene, "/spatial_node/load_scene", directory=str(directory))


def answer(client) -> SpatialAnswer:
    return call(client, SpatialQuery, "/spatial_query", question=ASKED).answer


class Selections:
    """The latest selection of the node that runs now."""

    def __init__(self, client) -> None:
        self.latest = None
        client.node.create_subscription(FrameSelection, "/spatial_node/selection", self._on_message, LATCHED)

    def _on_message(self, message) -> None:
        self.latest = message

    def stamps(self) -> list[int]:
        return [] if self.latest is None else stamps_of(self.latest.stamps)


class PosedCamera:
    """Publishes an RGB-D camera that moves sideways, one frame at each call."""

    def __init__(self, client, frame_id: str) -> None:
        node, self._frame_id = client.node, frame_id
        kinds = {"camera_info": CameraInfo, "camera_pose": PoseStamped, "image": Image, "depth": Image}
        self._publishers = {topic: node.create_publisher(kind, topic, 5) for topic, kind in kinds.items()}
        client.until(lambda: all(p.get_subscription_count() for p in self._publishers.values()), "the node listens")
        self._rgb = cv2.resize(np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8), (84, 60))
        self._count = 0

    def publish(self, stamp_ns: int) -> None:
        self._count += 1
        image = Image(height=60, width=84, encoding="rgb8", step=252, data=self._rgb.tobytes())
        depth = Image(height=60, width=84, encoding="16UC1", step=168, data=np.full(60 * 84, 2000, "<u2").tobytes())
        info = CameraInfo(height=60, width=84, k=[70.0, 0.0, 41.5, 0.0, 70.0, 29.5, 0.0, 0.0, 1.0])
        pose = PoseStamped()
        pose.pose.position.x = 0.1 * self._count
        pose.pose.orientation.w = 1.0
        messages = {"camera_info": info, "camera_pose": pose, "image": image, "depth": depth}
        for topic, message in messages.items():
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND_NS)
            message.header.frame_id = self._frame_id if topic == "camera_pose" else "camera_optical"
            self._publishers[topic].publish(message)


def posed_node(root, **changes) -> dict:
    return {
        "memory.directory": str(root),
        "input.depth": True,
        "input.pose_source": "topic",
        "scene_frame": "map",
        "buffer.rate_hz": 1000.0,
        "selection.frames": 4,
        **changes,
    }


def test_a_node_answers_from_what_another_one_saw_before_it_was_ended(start_node, ros_client, tmp_path):
    root = tmp_path / "scenes"
    first = start_node(**posed_node(root))
    before, camera = Selections(ros_client), PosedCamera(ros_client, "map")
    stamps = iter(range(time.time_ns(), 2**63, SECOND_NS // 20))
    ros_client.until(lambda: camera.publish(next(stamps)) or len(before.stamps()) == 4, "four frames are selected")

    def save_answer_save() -> tuple:
        return save(ros_client, root / "room"), answer(ros_client), save(ros_client, root / "room")

    # Until no frame is on its way any more, and the model has read the newest evidence.
    earlier, given, saved = next(
        (first_save, said, second_save)
        for first_save, said, second_save in iter(save_answer_save, None)
        if first_save.frames == second_save.frames and stamps_of(said.evidence) == before.stamps()
    )
    assert earlier.success, earlier.message
    assert saved.bytes == sum(p.stat().st_size for p in (root / "room").iterdir())
    assert first.end() == 0

    start_node(**posed_node(root))
    after = Selections(ros_client)
    assert answer(ros_client).status == SpatialAnswer.STATUS_NO_FRAMES
    loaded = load(ros_client, root / "room")
    assert loaded.success, loaded.message
    assert (loaded.frames, loaded.epoch) == (saved.frames, 1)
    assert "'map'" in loaded.message
    again = answer(ros_client)  # no camera has published since: it is answered from memory, with its age
    assert again.status in (SpatialAnswer.STATUS_OK, SpatialAnswer.STATUS_UNPARSED), again.message
    evidence = stamps_of(again.evidence)
    assert evidence == stamps_of(given.evidence)
    assert (again.epoch, again.scale_source) == (1, "depth")
    age_ns = again.newest_frame_age.sec * SECOND_NS + again.newest_frame_age.nanosec
    assert 0 <= time.time_ns() - evidence[-1] - age_ns < 240 * SECOND_NS
    ros_client.until(lambda: after.stamps() == evidence, "the selection is published")

    camera = PosedCamera(ros_client, "map")
    new = next(stamps) + 100 * SECOND_NS
    ros_client.until(
        lambda: camera.publish(new) or (after.latest.header.stamp.sec == new // SECOND_NS), "a new frame is placed"
    )
    assert after.latest.epoch == 1
    assert after.latest.ring_frames == saved.frames + 1


def test_what_cannot_be_saved_or_loaded_is_a_sentence_and_the_node_goes_on(start_node, ros_client, tmp_path):
    root = tmp_path / "scenes"
    start_node(**posed_node(root))
    nothing = save(ros_client, root / "room")
    assert (nothing.success, nothing.frames, nothing.bytes) == (False, 0, 0)
    assert "holds no frame yet" in nothing.message
    selections, camera = Selections(ros_client), PosedCamera(ros_client, "map")
    stamps = iter(range(5000 * SECOND_NS, 2**63, SECOND_NS // 20))
    ros_client.until(lambda: camera.publish(next(stamps)) or len(selections.stamps()) == 4, "four frames are selected")
    for wrong, why in [
        ("room", "is not an absolute path"),
        (f"{root}/../room", "goes up"),
        (tmp_path / "elsewhere", "does not lie below"),
        ("/etc/cron.d", "does not lie below"),
    ]:
        for refused in (save(ros_client, wrong), load(ros_client, wrong)):
            assert not refused.success
            assert why in refused.message
    assert not (tmp_path / "elsewhere").exists()
    assert save(ros_client, root / "room").success
    image = next((root / "room").glob("image_*"))
    image.write_bytes(image.read_bytes()[:-9])
    shown = selections.stamps()
    damaged = load(ros_client, root / "room")
    assert not damaged.success
    assert image.name in damaged.message
    assert damaged.epoch == 0
    assert selections.stamps() == shown
    assert save(ros_client, root / "room").success  # a damaged one may be replaced
    assert load(ros_client, root / "room").epoch == 1


def test_an_inactive_node_says_so(start_node, ros_client, tmp_path):
    start_node(**{"memory.directory": str(tmp_path)})
    deactivate = Transition(id=Transition.TRANSITION_DEACTIVATE)
    assert call(ros_client, ChangeState, "/spatial_node/change_state", transition=deactivate).success
    assert "not active" in save(ros_client, tmp_path / "room").message
    assert "not active" in load(ros_client, tmp_path / "room").message
    assert not (tmp_path / "room").exists()
