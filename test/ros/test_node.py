import threading
import time
from array import array

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.msg", reason="the interfaces are not built; run ./dev install")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

from spatial_mllm_ros.action import SpatialQuery as SpatialQueryAction  # noqa: E402
from spatial_mllm_ros.msg import FrameSelection, SpatialAnswer  # noqa: E402
from spatial_mllm_ros.srv import SpatialQuery  # noqa: E402

SECOND_NS = 1_000_000_000
SMALL = {"encoder.image_width_px": 84, "encoder.window": 2, "encoder.anchors": 1, "selection.frames": 4}
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_message(rgb: np.ndarray, stamp_ns: int, encoding: str = "rgb8") -> Image:
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, step=rgb.strides[0])
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND_NS)
    message.header.frame_id = "camera_optical"
    message.data = array("B")
    message.data.frombytes(np.ascontiguousarray(rgb).tobytes())
    return message


class Camera:
    """Publishes images from a thread of its own, so that frames come while the test waits for something else."""

    def __init__(self, node, height: int, width: int, rate_hz: float = 15.0) -> None:
        self._publisher = node.create_publisher(Image, "image", 5)
        self._rgb = texture(height, width)
        self._period_s = 1.0 / rate_hz
        self._stop = threading.Event()
        self.stamps_ns: list[int] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            stamp_ns = time.time_ns()
            self.stamps_ns.append(stamp_ns)
            self._publisher.publish(image_message(self._rgb, stamp_ns))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def camera(ros_client):
    cameras = []

    def start(height: int = 120, width: int = 168, **options) -> Camera:
        cameras.append(Camera(ros_client.node, height, width, **options))
        return cameras[-1]

    yield start
    for running in cameras:
        running.stop()


class Diagnostics:
    """What each message on /diagnostics says: values by "status.key"."""

    def __init__(self, node) -> None:
        self.messages: list[dict[str, str]] = []
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_message, 10)

    def _on_message(self, message: DiagnosticArray) -> None:
        self.messages.append(
            {
                f"{status.name.split(': ')[-1]}.{pair.key}": pair.value
                for status in message.status
                for pair in status.values
            }
        )

    def values(self, name: str) -> list[int]:
        """The value in every message so far, 0 where it was not told."""
        return [int(message.get(name) or 0) for message in self.messages]

    def value(self, name: str) -> int:
        return (self.values(name) or [0])[-1]


def ask(client, *questions: str, deadline_s: int = 200) -> list:
    """Futures of the answers to questions that are sent one directly after the other."""
    service = client.node.create_client(SpatialQuery, "/spatial_query")
    client.until(service.service_is_ready, "the service /spatial_query is there")
    requests = [SpatialQuery.Request(question=question) for question in questions]
    for request in requests:
        request.deadline.sec = deadline_s
    return [service.call_async(request) for request in requests]


def answer_to(client, question: str, **options) -> SpatialAnswer:
    (future,) = ask(client, question, **options)
    client.until(future.done, f"an answer to {question!r}")
    return future.result().answer


def stamps_of(times) -> list[int]:
    return [time.sec * SECOND_NS + time.nanosec for time in times]


def wait_for_selection(client) -> FrameSelection:
    selections: list[FrameSelection] = []
    client.node.create_subscription(FrameSelection, "/spatial_node/selection", selections.append, LATCHED)
    client.until(lambda: selections and selections[-1].stamps, "frames are selected")
    return selections[-1]


def test_a_question_is_answered_from_frames_of_another_process_with_its_evidence(start_node, ros_client, camera):
    start_node(**SMALL)
    frames = camera()
    selection = wait_for_selection(ros_client)
    assert set(stamps_of(selection.stamps)) <= set(frames.stamps_ns)
    assert 0 < selection.covered_voxels <= selection.total_voxels
    assert selection.scale_source == "model"
    answer = answer_to(ros_client, "How many chairs are in this room?")
    assert answer.status in (SpatialAnswer.STATUS_OK, SpatialAnswer.STATUS_UNPARSED), answer.message
    assert set(stamps_of(answer.evidence)) <= set(frames.stamps_ns)
    assert len(answer.evidence) <= 4
    assert answer.random_weights  # this model says of itself that its text means nothing
    assert answer.model_sha256
    assert answer.timings.total.sec * SECOND_NS + answer.timings.total.nanosec > 0


def test_the_selection_reaches_a_subscriber_that_comes_late(start_node, ros_client, camera):
    start_node(**SMALL)
    frames = camera()
    first = wait_for_selection(ros_client)
    frames.stop()
    assert stamps_of(wait_for_selection(ros_client).stamps)[0] >= stamps_of(first.stamps)[0]


def test_sensor_depth_and_poses_give_a_metric_selection(start_node, ros_client):
    start_node(**{"input.depth": True, "input.pose_source": "topic", "scene_frame": "map", "buffer.rate_hz": 100.0})
    node = ros_client.node
    publishers = {
        topic: node.create_publisher(kind, topic, 5)
        for topic, kind in (
            ("image", Image),
            ("depth", Image),
            ("camera_info", CameraInfo),
            ("camera_pose", PoseStamped),
        )
    }
    selections: list[FrameSelection] = []
    node.create_subscription(FrameSelection, "/spatial_node/selection", selections.append, LATCHED)
    ros_client.until(lambda: all(p.get_subscription_count() for p in publishers.values()), "the node listens")
    rgb = texture(60, 84)
    start_ns = time.time_ns()

    def publish(index: int) -> None:
        image = image_message(rgb, start_ns + index * SECOND_NS // 20)
        depth = image_message(np.full((60, 84), 2000, np.uint16).view(np.uint8).reshape(60, 84, 2), 1, "16UC1")
        info = CameraInfo(height=60, width=84, k=[70.0, 0.0, 41.5, 0.0, 70.0, 29.5, 0.0, 0.0, 1.0])
        pose = PoseStamped()
        pose.header.frame_id = "map"
        pose.pose.position.x = 0.4 * index
        pose.pose.orientation.w = 1.0
        for message in (depth, info, pose):
            message.header.stamp = image.header.stamp
        for topic, message in (("camera_info", info), ("camera_pose", pose), ("image", image), ("depth", depth)):
            publishers[topic].publish(message)

    published = iter(range(10_000))
    ros_client.until(
        lambda: publish(next(published)) or (selections and len(selections[-1].stamps) >= 3),
        "three frames are selected",
    )
    assert selections[-1].scale_source == "depth"
    assert selections[-1].header.frame_id == "map"
    assert selections[-1].voxel_size >= np.float32(0.02)


def test_frames_go_on_arriving_while_an_answer_is_generated(start_node, endless_checkpoint, ros_client, camera):
    start_node(checkpoint=endless_checkpoint, **SMALL, **{"query.max_new_tokens": 4096})
    camera(rate_hz=30.0)
    wait_for_selection(ros_client)
    diagnostics = Diagnostics(ros_client.node)
    ask(ros_client, "Describe what stands where.")

    def received_meanwhile() -> int:
        """By the node's own count: images from the first to the last message that knows the question as open."""
        told = zip(diagnostics.values("model.open_questions"), diagnostics.values("camera.received"), strict=True)
        received = [images for questions, images in told if questions]
        return received[-1] - received[0] if received else 0

    ros_client.until(lambda: received_meanwhile() >= 20, "20 images are received during the answer")


@pytest.mark.parametrize(
    ("question", "named"), [("", "empty"), ("   ", "empty"), ("x" * 5000, "5000"), ("how\x07many?", "U+0007")]
)
def test_a_malformed_question_is_answered_with_its_cause(start_node, ros_client, question, named):
    start_node()
    answer = answer_to(ros_client, question)
    assert answer.status == SpatialAnswer.STATUS_INVALID_QUESTION
    assert named in answer.message


def test_without_frames_the_answer_is_no_frames(start_node, ros_client):
    start_node()
    answer = answer_to(ros_client, "How many tables are there?")
    assert answer.status == SpatialAnswer.STATUS_NO_FRAMES
    assert "image" in answer.message


def test_malformed_images_are_counted_by_cause_and_the_node_goes_on(start_node, ros_client, camera):
    start_node(**SMALL, **{"buffer.rate_hz": 1000.0})
    publisher = ros_client.node.create_publisher(Image, "image", 5)
    diagnostics = Diagnostics(ros_client.node)
    ros_client.until(publisher.get_subscription_count, "the node listens")
    good = texture(60, 84)

    def publish_broken() -> None:
        broken = {
            "encoding": image_message(good, time.time_ns(), "bayer_grbg8"),
            "step": image_message(good, time.time_ns()),
        }
        broken["step"].step = 7
        broken["payload"] = image_message(good[:30], time.time_ns())
        broken["payload"].height = 60
        broken["size"] = image_message(good, time.time_ns())
        broken["size"].width = 0
        broken["stamp"] = image_message(good, 0)
        for message in broken.values():
            publisher.publish(message)

    causes = ("encoding", "step", "payload", "size", "stamp")
    ros_client.until(
        lambda: publish_broken() or all(diagnostics.value(f"camera.rejected.{cause}") for cause in causes),
        "every broken image is counted by its cause",
    )
    camera()
    assert wait_for_selection(ros_client).stamps


def test_a_broken_weights_folder_ends_the_node_with_the_file_named(start_node, tmp_path, ros_client):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors at all")
    running = start_node(checkpoint=str(tmp_path))
    assert running.exit_code() == 1
    assert "CHECKPOINT" in running.log
    assert "model.safetensors" in running.log or "config.json" in running.log
    assert "Traceback" not in running.log


def test_compressed_images_are_taken(start_node, ros_client):
    import cv2

    start_node(**SMALL, **{"input.compressed": True})
    publisher = ros_client.node.create_publisher(CompressedImage, "image/compressed", 5)
    selections: list[FrameSelection] = []
    ros_client.node.create_subscription(FrameSelection, "/spatial_node/selection", selections.append, LATCHED)
    jpeg = cv2.imencode(".jpg", cv2.resize(texture(12, 16), (168, 120)))[1].tobytes()

    def publish() -> None:
        message = CompressedImage(format="jpeg", data=array("B", jpeg))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), SECOND_NS)
        publisher.publish(message)

    ros_client.until(lambda: publish() or (selections and selections[-1].stamps), "a compressed frame is selected")


def test_one_question_too_many_is_busy_and_the_others_are_answered_in_order(
    start_node, endless_checkpoint, ros_client, camera
):
    start_node(checkpoint=endless_checkpoint, **SMALL, **{"query.queue_size": 1, "query.max_new_tokens": 4096})
    camera()
    wait_for_selection(ros_client)
    answers: list[SpatialAnswer] = []
    ros_client.node.create_subscription(SpatialAnswer, "/spatial_node/answers", answers.append, 10)
    ros_client.until(lambda: answer_to(ros_client, "") and answers, "published answers arrive")
    questions = [f"What is thing {index}?" for index in range(4)]
    futures = ask(ros_client, *questions, deadline_s=8)
    ros_client.until(lambda: all(future.done() for future in futures), "all questions are answered")
    statuses = [future.result().answer.status for future in futures]
    assert SpatialAnswer.STATUS_BUSY in statuses
    assert statuses.count(SpatialAnswer.STATUS_BUSY) < 4
    published = lambda: [answer for answer in answers if answer.question in questions]  # noqa: E731
    ros_client.until(lambda: len(published()) == 4, "all answers are published as well")
    worked_on = [answer.question for answer in published() if answer.status != SpatialAnswer.STATUS_BUSY]
    assert worked_on == sorted(worked_on)


def test_an_action_shows_the_text_as_it_grows_and_can_be_cancelled(start_node, endless_checkpoint, ros_client, camera):
    start_node(checkpoint=endless_checkpoint, **SMALL, **{"query.max_new_tokens": 4096})
    camera()
    wait_for_selection(ros_client)
    client = ActionClient(ros_client.node, SpatialQueryAction, "/spatial_query")
    ros_client.until(client.server_is_ready, "the action is there")
    feedback: list[str] = []
    goal = SpatialQueryAction.Goal(question="Describe everything.")
    goal.deadline.sec = 200
    accepted = client.send_goal_async(goal, feedback_callback=lambda m: feedback.append(m.feedback.partial_text))
    ros_client.until(accepted.done, "the goal is accepted")
    ros_client.until(lambda: len(feedback) >= 3, "text grows")
    handle = accepted.result()
    handle.cancel_goal_async()
    result = handle.get_result_async()
    ros_client.until(result.done, "the cancelled result")
    answer = result.result().result.answer
    assert answer.status == SpatialAnswer.STATUS_CANCELLED
    assert len(feedback[-1]) >= len(feedback[0])
    client.destroy()


def test_deactivated_the_node_says_so_and_activated_it_answers_again(start_node, ros_client):
    start_node()
    change = ros_client.node.create_client(ChangeState, "/spatial_node/change_state")
    ros_client.until(change.service_is_ready, "the lifecycle services are there")

    def transition(which: int) -> None:
        future = change.call_async(ChangeState.Request(transition=Transition(id=which)))
        ros_client.until(future.done, f"transition {which}")
        assert future.result().success

    assert answer_to(ros_client, "How many tables?").status == SpatialAnswer.STATUS_NO_FRAMES
    transition(Transition.TRANSITION_DEACTIVATE)
    assert answer_to(ros_client, "How many tables?").status == SpatialAnswer.STATUS_NOT_ACTIVE
    transition(Transition.TRANSITION_CLEANUP)
    transition(Transition.TRANSITION_CONFIGURE)
    transition(Transition.TRANSITION_ACTIVATE)
    assert answer_to(ros_client, "How many tables?").status == SpatialAnswer.STATUS_NO_FRAMES


def test_a_deadline_ends_an_endless_answer_with_what_there_is(start_node, endless_checkpoint, ros_client, camera):
    start_node(checkpoint=endless_checkpoint, **SMALL, **{"query.max_new_tokens": 4096})
    camera()
    wait_for_selection(ros_client)
    answers = (answer_to(ros_client, "Describe everything.", deadline_s=2) for _ in range(50))
    answer = next(answer for answer in answers if answer.evidence)  # earlier ones may come before any context is made
    assert answer.status == SpatialAnswer.STATUS_DEADLINE


def test_a_view_that_is_too_old_is_said_to_be_stale_at_the_deadline(start_node, ros_client, camera):
    start_node(**SMALL, **{"query.max_view_age_s": 0.5})
    frames = camera()
    wait_for_selection(ros_client)
    frames.stop()
    newest_ns = frames.stamps_ns[-1]
    ros_client.until(lambda: time.time_ns() > newest_ns + SECOND_NS, "the view is old")
    answer = answer_to(ros_client, "How many tables?", deadline_s=1)
    assert answer.status == SpatialAnswer.STATUS_STALE_VIEW
    assert answer.newest_frame_age.sec >= 1


def test_a_jump_back_of_the_clock_starts_a_new_epoch(start_node, ros_client):
    start_node(**SMALL, **{"buffer.rate_hz": 1000.0, "query.max_view_age_s": 1e9})
    publisher = ros_client.node.create_publisher(Image, "image", 5)
    selections: list[FrameSelection] = []
    ros_client.node.create_subscription(FrameSelection, "/spatial_node/selection", selections.append, LATCHED)
    ros_client.until(publisher.get_subscription_count, "the node listens")
    rgb = texture(120, 168)

    def play_from(start_s: int, epoch: int) -> FrameSelection:
        stamps = iter(range(start_s * SECOND_NS, (start_s + 1000) * SECOND_NS, SECOND_NS // 10))
        ros_client.until(
            lambda: (
                publisher.publish(image_message(rgb, next(stamps)))
                or (selections and selections[-1].epoch == epoch and selections[-1].stamps)
            ),
            f"frames of epoch {epoch} are selected",
        )
        return selections[-1]

    first_epoch = play_from(5000, 0).epoch
    second = play_from(1000, first_epoch + 1)
    assert max(stamps_of(second.stamps)) < 5000 * SECOND_NS


def test_sigterm_answers_the_open_question_and_ends_the_node_cleanly(
    start_node, endless_checkpoint, ros_client, camera
):
    running = start_node(checkpoint=endless_checkpoint, **SMALL, **{"query.max_new_tokens": 4096})
    camera()
    wait_for_selection(ros_client)
    diagnostics = Diagnostics(ros_client.node)
    ros_client.until(lambda: diagnostics.messages, "diagnostics arrive")
    (future,) = ask(ros_client, "Describe everything.")
    ros_client.until(lambda: diagnostics.value("model.open_questions"), "the node has the question")
    running.process.terminate()
    ros_client.until(future.done, "the last answer")
    assert future.result().answer.status == SpatialAnswer.STATUS_CANCELLED
    assert running.exit_code() == 0
    assert "Traceback" not in running.log
