"""The spatial node: a managed (lifecycle) node that turns a camera stream into answers about space."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from spatial_mllm_ros.answering.answer import Answer
from spatial_mllm_ros.answering.session import SpatialSession
from spatial_mllm_ros.answering.setup import open_session
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.msg import FrameSelection, SpatialAnswer
from spatial_mllm_ros.ros.active import ActiveNode
from spatial_mllm_ros.ros.camera_input import CameraInput
from spatial_mllm_ros.ros.conversions import answer_message, nanoseconds, selection_message
from spatial_mllm_ros.ros.diagnostics import camera_status, model_status, scene_status
from spatial_mllm_ros.ros.environment import use_shared_memory_profile
from spatial_mllm_ros.ros.markers import MarkerOutput
from spatial_mllm_ros.ros.parameters import NodeParameters
from spatial_mllm_ros.ros.questions import QuestionServer
from spatial_mllm_ros.ros.scene_services import SceneServices
from spatial_mllm_ros.ros.spinning import spin_until_shutdown
from spatial_mllm_ros.ros.worker import SessionWorker

_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass(frozen=True, eq=False)
class _Configured:
    parameters: NodeParameters
    session: SpatialSession
    camera: CameraInput


class SpatialNode(LifecycleNode):
    """Buffers frames, selects them by coverage, and answers `/spatial_query`.

    The session's worker thread does all heavy work; the executor's thread decodes images and passes messages on.
    """

    def __init__(self) -> None:
        super().__init__("spatial_node")
        NodeParameters.declare(self)
        self._configured: _Configured | None = None
        self._worker: SessionWorker | None = None
        self._selection_publisher = self.create_publisher(FrameSelection, "~/selection", _LATCHED)
        self._markers = MarkerOutput(self.create_publisher(MarkerArray, "~/markers", _LATCHED))
        self._answer_publisher = self.create_publisher(SpatialAnswer, "~/answers", 10)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On the steady clock: with use_sim_time, diagnostics must tell that the clock has not started.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self._questions = QuestionServer(self, self._active, self._publish_answer)
        self._scene_services = SceneServices(self, self._active, self._publish_selection)

    # -- lifecycle -------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the parameters, loads the model, and subscribes."""
        try:
            parameters = NodeParameters.read(self)
            session = open_session(parameters.session_config())
            camera = CameraInput(
                self, parameters, session.scene, on_color=self._on_color, on_frame=self._on_frame_added
            )
        except SpatialMllmError as error:
            self.get_logger().error(f"Cannot be configured ({error.code}): {error}")
            return TransitionCallbackReturn.FAILURE
        self._configured = _Configured(parameters, session, camera)
        identity = session.model.identity
        self.get_logger().info(
            f"Model {identity.name} ({identity.architecture}), weights licence: {identity.licence}, "
            f"sha256 {identity.sha256[:12]}."
        )
        if identity.random_weights:
            self.get_logger().warning("This model has random weights: its text means nothing. Selection is real.")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts to take frames and questions."""
        configured = self._configured
        if configured is None:
            return TransitionCallbackReturn.ERROR
        query = configured.parameters.query
        self._worker = SessionWorker(
            configured.session,
            queue_size=query.queue_size,
            max_view_age_ns=nanoseconds(query.max_view_age_s),
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
        """Ends the subscriptions; drops scene and model."""
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
        return self._questions.open_questions > 0 or self._scene_services.busy

    def close(self) -> None:
        """Ends the worker thread and waits for a scene that is being saved; called at the end of the process."""
        self._stop_worker()
        self._scene_services.close()

    def _stop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _release(self) -> None:
        # Transitions run in the executor's own thread, so no subscription is being waited on here.
        configured, self._configured = self._configured, None
        if configured is not None:
            configured.camera.close()

    def _active(self) -> ActiveNode | None:
        configured, worker = self._configured, self._worker
        if configured is None or worker is None:
            return None
        return ActiveNode(configured.parameters, configured.session, worker)

    # -- frames ----------------------------------------------------------------------------------------------------

    def _on_color(self, message: Image | CompressedImage) -> None:
        if self._worker is not None and self._configured is not None:  # an inactive node takes no frames
            self._configured.camera.assembler.on_color(message)

    def _on_frame_added(self) -> None:
        if self._worker is not None:
            self._worker.frame_added()

    def _now_stamp_ns(self) -> int:
        now_ns: int = self.get_clock().now().nanoseconds
        return now_ns

    # -- what others see -------------------------------------------------------------------------------------------

    def _scene_frame(self) -> str:
        if self._configured is not None:
            return self._configured.parameters.scene_frame
        return str(self.get_parameter("scene_frame").value)

    def _publish_answer(self, answer: Answer, question: str) -> SpatialAnswer:
        message = answer_message(answer, question, self._scene_frame())
        self._answer_publisher.publish(message)
        self._markers.evidence_stamps_ns = answer.evidence_stamps_ns
        return message

    def _publish_selection(self) -> None:
        configured = self._configured
        if configured is not None:
            scene = configured.session.scene
            self._selection_publisher.publish(
                selection_message(scene.snapshot.selection, scene.status(), self._scene_frame())
            )

    def _publish_diagnostics(self) -> None:
        active = self._active()
        if active is not None and self._markers.has_viewers():
            scene, scene_frame = active.session.scene, self._scene_frame()
            active.worker.submit_task(lambda: self._markers.publish(scene, scene_frame))
        message = DiagnosticArray(status=self._statuses())
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)

    def _statuses(self) -> list[DiagnosticStatus]:
        name = self.get_fully_qualified_name()
        configured, open_questions = self._configured, self._questions.open_questions
        if configured is None:
            return [model_status(name, "unconfigured", "", "", open_questions)]
        identity, status = configured.session.model.identity, configured.session.scene.status()
        state = "inactive" if self._worker is None else "active"
        camera = configured.camera
        return [
            model_status(name, state, identity.name, identity.licence, open_questions),
            camera_status(
                name,
                status,
                received=camera.assembler.received,
                waiting=camera.assembler.waiting,
                last_reason=camera.assembler.last_reason,
                now_stamp_ns=self._now_stamp_ns(),
                incompatible_topics=camera.incompatible_topics,
            ),
            scene_status(name, status),
        ]


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
