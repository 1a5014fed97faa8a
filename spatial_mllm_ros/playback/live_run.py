"""A recording played into a running node, in processes of their own, and a client that asks the node questions."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.setup import SessionConfig
from spatial_mllm_ros.errors import SourceError, SpatialMllmError
from spatial_mllm_ros.msg import FrameSelection, SpatialAnswer
from spatial_mllm_ros.recordings.sources import FrameSource
from spatial_mllm_ros.ros.conversions import stamp_ns
from spatial_mllm_ros.ros.parameters import InputParameters, NodeParameters
from spatial_mllm_ros.srv import SpatialQuery

if TYPE_CHECKING:
    from rclpy.node import Node

_log = logging.getLogger(__name__)

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STARTUP_S = 300.0
_ANSWER_S = 180.0
_RECORDING_S = 3600.0
_INPUTS = ("image", "depth", "camera_info", "camera_pose")
# Of a live camera, a node misses what it does not take in time; a recording must reach it whole on a slow machine too.
_WHOLE_RECORDING = {"depth": "1000", "reliability": "reliable"}


class LiveRunError(SpatialMllmError):
    """One of the processes failed, or did not do in time what it was to do."""

    code = "LIVE_RUN"


def node_parameters(recording: FrameSource, config: SessionConfig) -> NodeParameters:
    """The parameters of a node that runs the session of ``config`` on ``recording``.

    The node uses depth and poses where the recording has both. As in a replay, it never waits for a newer frame, and it
    answers from the evidence set of the moment, not from a context that is near enough.

    Raises:
        ConfigurationError: the node has no parameter for a value of ``config``.
        SourceError: the recording has no frame.
    """
    first = next(iter(recording), None)
    if first is None:
        raise SourceError(f"{recording.name} has no frame that can be played; choose another recording.")
    has_depth = first.depth_m is not None and first.intrinsics is not None and first.scene_from_cam is not None
    parameters = NodeParameters.from_session(config)
    return replace(
        parameters,
        scene_frame="map",
        input=InputParameters(depth=has_depth, pose_source="topic" if has_depth else "none", reliability="reliable"),
        context=replace(parameters.context, max_changed_fraction=0.0),
        query=replace(parameters.query, max_view_age_s=1e6),
    )


def node_command(parameters: NodeParameters) -> list[str]:
    """The node's process, with the clock that the player publishes."""
    overrides = [
        part
        for topic in _INPUTS
        for policy, value in _WHOLE_RECORDING.items()
        for part in ("-p", f"qos_overrides./{topic}.subscription.{policy}:={value}")
    ]
    ros_arguments = ["--ros-args", "-p", "use_sim_time:=true", *parameters.arguments(), *overrides]
    return [*_main_of("spatial_mllm_ros.ros.node"), *ros_arguments]


def player_command(source: Path, *options: str) -> list[str]:
    """The player's process, which keeps the stamps of the recording and waits for a node that loads its model."""
    waiting = ("--stamps", "original", "--wait-s", f"{STARTUP_S:g}")
    return [*_main_of("spatial_mllm_ros.playback.player"), str(source), *waiting, *options]


def _main_of(module: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"]


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in ``log``. On leaving it gets SIGTERM, and SIGKILL if it has not ended after 20 s."""
    with log.open("wb") as output:
        process = subprocess.Popen(list(command), stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                _log.warning("The %s did not end within 20 s; killing it.", name)
                process.kill()
                process.wait()


@contextlib.contextmanager
def live_client(name: str, processes: Sequence[subprocess.Popen[bytes]] = ()) -> Iterator[LiveClient]:
    """A client, with rclpy initialised for as long as it is used; see ``LiveClient``."""
    rclpy.init()
    try:
        yield LiveClient(rclpy.create_node(name), list(processes))
    finally:
        rclpy.try_shutdown()


class LiveClient:
    """Listens to the selection, the clock and the diagnostics of the node, and asks questions.

    Attributes:
        selection: the node's latest, None before the first.
        clock_ns: the recording's time by /clock, 0 before the first message.
        processes: an error is raised when one of them ends while the client waits.
    """

    def __init__(self, node: Node, processes: list[subprocess.Popen[bytes]]) -> None:
        self._node = node
        self._client = node.create_client(SpatialQuery, "spatial_query")
        self.selection: FrameSelection | None = None
        self.clock_ns = 0
        self.processes = processes
        self._reports: list[dict[str, str]] = []  # diagnostic values of the node, one entry per message
        node.create_subscription(FrameSelection, "spatial_node/selection", self._on_selection, _LATCHED)
        node.create_subscription(Clock, "/clock", self._on_clock, 10)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_selection(self, message: FrameSelection) -> None:
        self.selection = message

    def _on_clock(self, message: Clock) -> None:
        self.clock_ns = stamp_ns(message.clock)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._reports.append({pair.key: pair.value for status in message.status for pair in status.values})

    def ready(self) -> bool:
        """Whether the node's service exists."""
        return bool(self._client.service_is_ready())

    def selected(self) -> Sequence[Time]:
        """Stamps of the latest selection."""
        return self.selection.stamps if self.selection is not None else ()

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Spins until ``condition``; LiveRunError when a process ends or the time is up."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            rclpy.spin_once(self._node, timeout_sec=0.1)
            ended = [process for process in self.processes if process.poll() is not None]
            if ended:
                raise LiveRunError(f"The node ended with code {ended[0].returncode} before {what}; see its log.")
            if time.monotonic() > end_s:
                raise LiveRunError(f"{timeout_s:.0f} s have passed without {what}; see the logs of the processes.")

    def until_time(self, time_ns: int, newest_ns: int, player: subprocess.Popen[bytes]) -> None:
        """Until the recording has reached ``time_ns`` and the node has placed the frame of stamp ``newest_ns``.

        When ``player`` ends before, until the node has settled: it then has placed all that it can.
        """

        def reached() -> bool:
            placed_ns = stamp_ns(self.selection.header.stamp) if self.selection is not None else 0
            return self.clock_ns >= time_ns and placed_ns >= newest_ns

        self.until(lambda: player.poll() is not None or reached(), f"a frame at {time_ns / 1e9:.3f} s", _RECORDING_S)
        if not reached():
            self.until_settled()

    def until_played(self, player: subprocess.Popen[bytes], log: Path) -> None:
        """Until the player has ended; LiveRunError when it has failed."""
        self.until(lambda: player.poll() is not None, "the end of the recording", _RECORDING_S)
        if player.returncode != 0:
            raise LiveRunError(f"The player ended with code {player.returncode}; see {log}.")

    def until_settled(self) -> None:
        """Until the node has taken and placed everything that has been published.

        Then two diagnostics in a row, a second apart, count the same images, and no frame waits for the encoder: the
        executor that publishes diagnostics would have taken an image between them if there were one.
        """
        self._reports.clear()

        def settled() -> bool:
            last = [[report.get(key) for key in ("received", "waiting")] for report in self._reports[-2:]]
            return len(last) == 2 and last[0] == last[1] and self._reports[-1].get("pending_frames") == "0"

        self.until(settled, "the node having placed every frame", STARTUP_S)

    def ask(self, question: Question) -> SpatialAnswer:
        """The node's answer."""
        request = SpatialQuery.Request(question=question.text, options=list(question.options))
        request.deadline.sec = int(_ANSWER_S * 2 / 3)
        future = self._client.call_async(request)
        self.until(future.done, "an answer", _ANSWER_S)
        return future.result().answer
