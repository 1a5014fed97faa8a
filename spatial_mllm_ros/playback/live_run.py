"""A recording played into a running node by real processes, and a client that asks it as a robot would."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.msg import FrameSelection, SpatialAnswer
from spatial_mllm_ros.recordings.sources import FrameSource
from spatial_mllm_ros.ros.conversions import stamp_ns
from spatial_mllm_ros.ros.environment import use_shared_memory_profile
from spatial_mllm_ros.srv import SpatialQuery

_log = logging.getLogger(__name__)

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STARTUP_S = 120.0
_ANSWER_S = 180.0


class LiveRunError(SpatialMllmError):
    """One of the processes did not do its part."""

    code = "LIVE_RUN"


def use_own_domain() -> None:
    """A ROS domain of this run's own: no other robot's cameras, and nobody else's /spatial_query."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    use_shared_memory_profile()


def node_command(recording: FrameSource, parameters: Mapping[str, object]) -> list[str]:
    """The node's process for ``recording``: its clock, its depth and poses where it has them.

    Args:
        parameters: further parameters of the node by dotted name; texts, numbers and booleans.
    """
    first = next(iter(recording))
    has_depth = first.depth_m is not None and first.intrinsics is not None and first.scene_from_cam is not None
    values = {
        "use_sim_time": True,  # the player publishes the recording's own clock
        "scene_frame": "map",
        "input.reliability": "reliable",
        "input.depth": has_depth,
        "input.pose_source": "topic" if has_depth else "none",
        **parameters,
    }
    texts = {name: str(v).lower() if isinstance(v, bool) else str(v) or "''" for name, v in values.items()}
    parts = [part for name, text in texts.items() for part in ("-p", f"{name}:={text}")]
    return [*_main_of("spatial_mllm_ros.ros.node"), "--ros-args", *parts]


def player_command(source: Path, *options: str) -> list[str]:
    """The player's process, with the recording's own stamps."""
    return [*_main_of("spatial_mllm_ros.playback.player"), str(source), "--stamps", "original", *options]


def _main_of(module: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"]


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in ``log``; ended on leaving, by SIGTERM first."""
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
    """A client node of its own rclpy context; ``processes`` must be alive while it waits."""
    rclpy.init()
    try:
        yield LiveClient(rclpy.create_node(name), list(processes))
    finally:
        rclpy.try_shutdown()


class LiveClient:
    """The robot: listens to the selection and to the clock, and asks.

    Attributes:
        selection: the node's latest, None before the first.
        clock_ns: the recording's time by /clock, 0 before the first message.
        processes: what must be alive while the client waits.
    """

    def __init__(self, node: Any, processes: list[subprocess.Popen[bytes]]) -> None:
        self._node = node
        self._client = node.create_client(SpatialQuery, "spatial_query")
        self.selection: FrameSelection | None = None
        self.clock_ns = 0
        self.processes = processes
        node.create_subscription(FrameSelection, "spatial_node/selection", self._on_selection, _LATCHED)
        node.create_subscription(Clock, "/clock", self._on_clock, 10)

    def _on_selection(self, message: FrameSelection) -> None:
        self.selection = message

    def _on_clock(self, message: Clock) -> None:
        self.clock_ns = stamp_ns(message.clock)

    def ready(self) -> bool:
        """Whether the node's service is there."""
        return bool(self._client.service_is_ready())

    def selected(self) -> Sequence[Any]:
        """Stamps of the latest selection."""
        return self.selection.stamps if self.selection is not None else ()

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Spins until ``condition``; LiveRunError when a process ends or the time is up."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            rclpy.spin_once(self._node, timeout_sec=0.1)
            ended = [process for process in self.processes if process.poll() is not None]
            if ended:
                raise LiveRunError(f"The node ended with code {ended[0].returncode} before {what}; its log says why.")
            if time.monotonic() > end_s:
                raise LiveRunError(f"Waited {timeout_s:.0f} s in vain for {what}; the logs of the processes say more.")

    def until_settled(self) -> None:
        """Until the node has placed what it has buffered: two seconds without a new selection."""
        while True:
            before, end_s = self.selection, time.monotonic() + 2.0
            self.until(lambda end_s=end_s: time.monotonic() > end_s, "a quiet moment", 10.0)
            if self.selection is before:
                return

    def until_played(self, player: subprocess.Popen[bytes], log: Path) -> None:
        """Until the player has ended, well."""
        self.until(lambda: player.poll() is not None, "the end of the recording", 3600.0)
        if player.returncode != 0:
            raise LiveRunError(f"The player ended with code {player.returncode}; see {log}.")

    def ask(self, question: Question) -> SpatialAnswer:
        """The node's answer."""
        request = SpatialQuery.Request(question=question.text, options=list(question.options))
        request.deadline.sec = int(_ANSWER_S * 2 / 3)
        future = self._client.call_async(request)
        self.until(future.done, "an answer", _ANSWER_S)
        return future.result().answer
