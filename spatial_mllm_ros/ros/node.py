"""The spatial node: a managed (lifecycle) node that turns a camera stream into answers about space."""

from __future__ import annotations

import sys
import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from spatial_mllm_ros.action import SpatialQuery as SpatialQueryAction
from spatial_mllm_ros.answering.answer import Answer, Status
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.session import Inquiry, SpatialSession
from spatial_mllm_ros.answering.setup import open_session
from spatial_mllm_ros.errors import QuestionError, SpatialMllmError
from spatial_mllm_ros.msg import FrameSelection, SpatialAnswer
from spatial_mllm_ros.ros.conversions import answer_message, selection_message
from spatial_mllm_ros.ros.diagnostics import camera_status, node_status, scene_status
from spatial_mllm_ros.ros.environment import use_shared_memory_profile
from spatial_mllm_ros.ros.markers import MarkerOutput
from spatial_mllm_ros.ros.message_matching import FrameAssembler, PoseSource, TopicPoses
from spatial_mllm_ros.ros.parameters import NodeParameters
from spatial_mllm_ros.ros.scene_services import ActiveScene, SceneMemory
from spatial_mllm_ros.ros.spinning import spin_until_shutdown
from spatial_mllm_ros.ros.tf_poses import TfPoses
from spatial_mllm_ros.ros.worker import SessionWorker
from spatial_mllm_ros.srv import SpatialQuery

_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_NS = 1_000_000_000


class SpatialNode(LifecycleNode):
    """Buffers frames, selects them by coverage, and answers `/spatial_query`.

    Everything heavy happens in the session's worker thread; the executor's thread only decodes images and hands
    messages over. The service and the action exist in every state: outside of `active` they answer NOT_ACTIVE.
    """

    def __init__(self) -> None:
        super().__init__("spatial_node")
        NodeParameters.declare(self)
        self._settings: NodeParameters | None = None
        self._session: SpatialSession | None = None
        self._worker: SessionWorker | None = None
        self._assembler: FrameAssembler | None = None
        self._inputs: list[Any] = []
        self._incompatible_topics: set[str] = set()
        self.open_questions = 0  # asked and not answered yet
        self._selection_publisher = self.create_publisher(FrameSelection, "~/selection", _LATCHED)
        self._markers = MarkerOutput(self.create_publisher(MarkerArray, "~/markers", _LATCHED))
        self._answer_publisher = self.create_publisher(SpatialAnswer, "~/answers", 10)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On the steady clock: with use_sim_time, a clock that does not start is just what diagnostics must tell.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        # A pending answer must not hold back the frames: each way of asking has a callback group of its own.
        self._service = self.create_service(
            SpatialQuery, "spatial_query", self._on_query, callback_group=ReentrantCallbackGroup()
        )
        self._action = ActionServer(
            self,
            SpatialQueryAction,
            "spatial_query",
            execute_callback=self._on_goal,
            goal_callback=lambda _request: GoalResponse.ACCEPT,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )
        self.memory = SceneMemory(self, self._active_scene)

    # -- lifecycle -------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the parameters, loads the model, and subscribes."""
        try:
            self._settings = NodeParameters.read(self)
            self._session = open_session(self._settings.session_config())
            self._subscribe(self._settings, self._session)
        except SpatialMllmError as error:
            self.get_logger().error(f"Cannot be configured ({error.code}): {error}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        identity = self._session.model.identity
        self.get_logger().info(
            f"Model {identity.name} ({identity.architecture}), weights licence: {identity.licence}, "
            f"sha256 {identity.sha256[:12]}."
        )
        if identity.random_weights:
            self.get_logger().warning("This model has random weights: its text means nothing. Selection is real.")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts to take frames and questions."""
        parameters = self._settings
        self._worker = SessionWorker(
            self._session,
            queue_size=parameters["query.queue_size"],
            max_view_age_ns=int(parameters["query.max_view_age_s"] * _NS),
            now_stamp_ns=self._now_stamp_ns,
            on_scene_changed=self._publish_selection,
        )
        self.get_logger().info("Active: ask on 'spatial_query'.")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops to take frames and questions; open questions are answered CANCELLED."""
        self._stop_worker()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forgets scene and model."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the work in every state."""
        self._stop_worker()
        self._release()
        return super().on_shutdown(state)

    @property
    def busy(self) -> bool:
        """Whether a question or a request about a saved scene has not been answered yet."""
        return self.open_questions > 0 or self.memory.busy

    def close(self) -> None:
        """Ends the worker thread and waits for a scene that is being saved; for the end of the process."""
        self._stop_worker()
        self.memory.close()

    def _stop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _release(self) -> None:
        # Transitions run in the executor's own thread, so no subscription is being waited on here.
        for entity in self._inputs:
            self.destroy_subscription(entity)
        self._inputs.clear()
        self._incompatible_topics.clear()
        self._assembler = self._session = self._settings = None

    # -- frames ----------------------------------------------------------------------------------------------------

    def _subscribe(self, parameters: NodeParameters, session: SpatialSession) -> None:
        slop_ns = int(parameters["input.match_slop_s"] * _NS)
        poses: PoseSource | None = {
            "none": lambda: None,
            "topic": lambda: TopicPoses(parameters["scene_frame"], slop_ns),
            "tf": lambda: TfPoses(self, parameters["scene_frame"]),
        }[parameters["input.pose_source"]]()
        assembler = FrameAssembler(
            session.scene,
            needs_depth=parameters["input.depth"],
            poses=poses,
            slop_ns=slop_ns,
            wait_ns=int(parameters["input.match_wait_s"] * _NS),
            on_frame=self._frame_added,
        )
        reliable = parameters["input.reliability"] == "reliable"
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT)
        group = MutuallyExclusiveCallbackGroup()

        def subscribe(message_type: type, topic: str, callback: Any, profile: Any = qos) -> None:
            self._inputs.append(
                self.create_subscription(
                    message_type,
                    topic,
                    callback,
                    profile,
                    callback_group=group,
                    event_callbacks=SubscriptionEventCallbacks(
                        incompatible_qos=lambda event: self._on_incompatible_qos(topic, event)
                    ),
                )
            )

        if parameters["input.compressed"]:
            subscribe(CompressedImage, "image/compressed", self._on_color)
        else:
            subscribe(Image, "image", self._on_color)
        subscribe(CameraInfo, "camera_info", assembler.on_camera_info)
        if parameters["input.depth"]:
            subscribe(Image, "depth", assembler.on_depth)
        if isinstance(poses, TopicPoses):
            poses_qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
            subscribe(PoseStamped, "camera_pose", assembler.on_pose, poses_qos)
        self._assembler = assembler

    def _on_color(self, message: Image | CompressedImage) -> None:
        if self._worker is not None:  # an inactive node takes no frames
            self._assembler.on_color(message)

    def _on_incompatible_qos(self, topic: str, event: Any) -> None:
        name = self.resolve_topic_name(topic)
        self._incompatible_topics.add(name)
        self.get_logger().error(
            f"A publisher on {name} offers a QoS that this node does not accept (policy {event.last_policy_kind}); "
            "set input.reliability to 'best_effort', or change the publisher.",
            throttle_duration_sec=10.0,
        )

    def _frame_added(self) -> None:
        if self._worker is not None:
            self._worker.frame_added()

    def _now_stamp_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # -- questions -------------------------------------------------------------------------------------------------

    async def _on_query(self, request: SpatialQuery.Request, response: SpatialQuery.Response) -> SpatialQuery.Response:
        response.answer = await self._answered(request, cancelled=lambda: False, on_text=None)
        return response

    async def _on_goal(self, goal: Any) -> SpatialQueryAction.Result:
        def on_text(text: str) -> None:
            goal.publish_feedback(SpatialQueryAction.Feedback(partial_text=text))

        answer = await self._answered(goal.request, cancelled=lambda: goal.is_cancel_requested, on_text=on_text)
        if answer.status == SpatialAnswer.STATUS_OK:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return SpatialQueryAction.Result(answer=answer)

    async def _answered(self, request: Any, *, cancelled: Any, on_text: Any) -> SpatialAnswer:
        self.open_questions += 1
        answer = await self._answer(request, cancelled=cancelled, on_text=on_text)
        self.open_questions -= 1
        message = answer_message(answer, request.question, self.get_parameter("scene_frame").value)
        self._answer_publisher.publish(message)
        self._markers.evidence_stamps_ns = answer.evidence_stamps_ns
        return message

    async def _answer(self, request: Any, *, cancelled: Any, on_text: Any) -> Answer:
        arrived_ns = time.monotonic_ns()
        worker = self._worker
        if worker is None:
            return Answer(Status.NOT_ACTIVE, "The node is not active; activate it (lifecycle) and ask again.")
        try:
            question = Question(request.question, tuple(request.options))
        except QuestionError as error:
            return Answer(Status.INVALID_QUESTION, str(error))
        asked_ns = request.deadline.sec * _NS + request.deadline.nanosec
        deadline_ns = asked_ns if asked_ns > 0 else int(self._settings["query.default_deadline_s"] * _NS)
        inquiry = Inquiry(
            question,
            arrived_ns,
            arrived_ns + deadline_ns,
            cancelled=lambda: worker.stopping or cancelled(),
            on_text=on_text,
        )
        return await self._submitted(worker, inquiry)

    async def _submitted(self, worker: SessionWorker, inquiry: Inquiry) -> Answer:
        future: Future = Future(executor=self.executor)

        def done(answer: Answer) -> None:
            future.set_result(answer)
            if self.executor is not None:
                self.executor.wake()  # an idle executor would otherwise not notice the result

        worker.submit(inquiry, done)
        return await future

    def _active_scene(self) -> ActiveScene | None:
        settings, worker, session = self._settings, self._worker, self._session
        if worker is None or session is None:
            return None
        return ActiveScene(
            session.scene, worker, settings.memory_root(), settings.scene_origin(), self._publish_selection
        )

    # -- what others see -------------------------------------------------------------------------------------------

    def _publish_selection(self) -> None:
        session = self._session
        if session is not None:
            scene_frame = self.get_parameter("scene_frame").value
            message = selection_message(session.scene.snapshot.selection, session.scene.status(), scene_frame)
            self._selection_publisher.publish(message)

    def _publish_diagnostics(self) -> None:
        name = self.get_fully_qualified_name()
        session, assembler = self._session, self._assembler
        if self._worker is not None and session is not None and self._markers.has_viewers():
            scene_frame = self.get_parameter("scene_frame").value
            self._worker.do(lambda: self._markers.publish(session.scene, scene_frame))
        state = "active" if self._worker is not None else ("inactive" if session is not None else "unconfigured")
        identity = session.model.identity if session is not None else None
        model, licence = (identity.name, identity.licence) if identity else ("", "")
        statuses = [node_status(name, state, model, licence, self.open_questions)]
        if session is not None and assembler is not None:
            status = session.scene.status()
            camera = camera_status(
                name,
                assembler,
                status,
                now_stamp_ns=self._now_stamp_ns(),
                incompatible_topics=self._incompatible_topics,
            )
            statuses += [camera, scene_status(name, status)]
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)


def main(args: list[str] | None = None) -> None:
    """Entry point of the executable `spatial_node`; exits with 1 when it starts itself and cannot be configured."""
    use_shared_memory_profile()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = SpatialNode()
    success = TransitionCallbackReturn.SUCCESS
    started = not node.get_parameter("autostart").value or (
        node.trigger_configure() == success and node.trigger_activate() == success
    )
    spin_until_shutdown(node, should_stop=lambda: not started)
    sys.exit(0 if started else 1)
