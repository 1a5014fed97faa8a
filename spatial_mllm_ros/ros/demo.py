"""The main job on one screen: a recording played into the running node, questions asked, one picture drawn.

Three real processes: the player publishes the recording, the node answers, and this one asks, as a robot would.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile

from spatial_mllm_ros.answering.answer import Status
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.datasets.rooms.world import split_seed
from spatial_mllm_ros.datasets.rooms.writers import RecordingConfig, write_room
from spatial_mllm_ros.datasets.sources import FrameSource, open_source
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.evaluation.live_picture import write_live_picture
from spatial_mllm_ros.msg import FrameSelection, SpatialAnswer
from spatial_mllm_ros.ros.conversions import stamp_ns
from spatial_mllm_ros.ros.environment import use_shared_memory_profile
from spatial_mllm_ros.srv import SpatialQuery

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_STARTUP_S = 120.0
_DEMO_ROOM, _DEMO_FRAMES = 4, 120  # of the test split; 8 seconds
_FRAMES_BEFORE_THE_FIRST_QUESTION = 4
_DURING = Question("How many chairs are in this room?")
_AFTER = (
    Question("How far is the chair from the door?"),
    Question("What is the size of this room (in square meters)?"),
    Question("Which of these objects is closest to the window?", ("table", "chair", "shelf", "door")),
)
PICTURE_FILE = "demo.png"


class DemoError(SpatialMllmError):
    """One of the demo's processes did not do its part."""

    code = "DEMO"


def run(source: Path | None, out_dir: Path, checkpoint: str) -> int:
    """The command `spatial_mllm demo`; returns its exit code.

    Args:
        source: a recording; None for a walk through a generated room, rendered on the spot.
        out_dir: where the picture goes; made if need be.
        checkpoint: folder of the model; "" for the one in the box.

    Raises:
        SpatialMllmError: the recording, the checkpoint or one of the processes fails; the sentence says which.
    """
    # A domain of its own: no other robot's cameras, and nobody else's /spatial_query.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    use_shared_memory_profile()
    out_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if source is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spatial_mllm_demo_")))
            _say("No recording given: rendering a walk through a generated room.")
            source = write_room(folder, split_seed("test", _DEMO_ROOM), "rgbd", RecordingConfig(frames=_DEMO_FRAMES))
        recording = stack.enter_context(open_source(source))
        selection = _play_and_ask(recording, source, out_dir, checkpoint)
        gains = {stamp_ns(stamp): gain for stamp, gain in zip(selection.stamps, selection.gains, strict=True)}
        figures = write_live_picture(out_dir / PICTURE_FILE, recording, gains, checkpoint)
    _say(
        f"\nCoverage, in voxels of {figures.voxel_size:.3g} {'m' if figures.unit == 'm' else '(relative)'}: "
        f"{len(gains)} selected frames {figures.selected}, as many uniform ones {figures.uniform}, "
        f"offline greedy {figures.offline_greedy}, all frames {figures.total}."
    )
    _say(f"Picture: {out_dir / PICTURE_FILE}")
    return 0


def _play_and_ask(recording: FrameSource, source: Path, out_dir: Path, checkpoint: str) -> FrameSelection:
    first = next(iter(recording))
    has_depth = first.depth_m is not None and first.intrinsics is not None and first.scene_from_cam is not None
    _say(f"Recording: {recording.name} ({recording.frame_count} frames{', depth and poses' if has_depth else ''}).")
    node_command = [
        *_main_of("spatial_mllm_ros.ros.node"),
        "--ros-args",
        *_parameter("use_sim_time", "true"),  # the player publishes the recording's own clock
        *_parameter("checkpoint", checkpoint or "''"),
        *_parameter("scene_frame", "map"),
        *_parameter("input.reliability", "reliable"),
        *_parameter("input.depth", str(has_depth).lower()),
        *_parameter("input.pose_source", "topic" if has_depth else "none"),
    ]
    player_command = [*_main_of("spatial_mllm_ros.ros.player"), str(source), "--stamps", "original"]
    rclpy.init()
    try:
        client = _Asker(rclpy.create_node("spatial_demo"))
        with _process(node_command, out_dir / "node.log", "node") as node:
            client.until(client.ready, "the node's service /spatial_query", [node], _STARTUP_S)
            with _process(player_command, out_dir / "player.log", "player") as player:
                client.until(
                    lambda: len(client.selected()) >= _FRAMES_BEFORE_THE_FIRST_QUESTION or player.poll() == 0,
                    "the first selected frames",
                    [node],
                    _STARTUP_S,
                )
                _say("\nWhile the camera runs:")
                client.ask(_DURING, [node])
                client.until(lambda: player.poll() is not None, "the end of the recording", [node], 3600.0)
                if player.returncode != 0:
                    raise DemoError(f"The player ended with code {player.returncode}; see {out_dir / 'player.log'}.")
            client.until_settled([node])
            _say("\nAfter the last frame:")
            for question in _AFTER:
                client.ask(question, [node])
            if client.selection is None:
                raise DemoError(f"The node selected no frame; see {out_dir / 'node.log'}.")
            return client.selection
    finally:
        rclpy.try_shutdown()


class _Asker:
    """The robot: listens to the selection, and asks."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._client = node.create_client(SpatialQuery, "spatial_query")
        self.selection: FrameSelection | None = None
        self._warned = False
        node.create_subscription(FrameSelection, "spatial_node/selection", self._on_selection, _LATCHED)

    def _on_selection(self, message: FrameSelection) -> None:
        self.selection = message

    def ready(self) -> bool:
        return bool(self._client.service_is_ready())

    def selected(self) -> Sequence[Any]:
        return self.selection.stamps if self.selection is not None else ()

    def until(
        self, condition: Callable[[], bool], what: str, processes: list[subprocess.Popen[bytes]], timeout_s: float
    ) -> None:
        """Spins until ``condition``; DemoError when one of ``processes`` ends or the time is up."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            rclpy.spin_once(self._node, timeout_sec=0.1)
            ended = [process for process in processes if process.poll() is not None]
            if ended:
                raise DemoError(f"The node ended with code {ended[0].returncode} before {what}; its log says why.")
            if time.monotonic() > end_s:
                raise DemoError(f"Waited {timeout_s:.0f} s in vain for {what}; see the logs beside the picture.")

    def until_settled(self, processes: list[subprocess.Popen[bytes]]) -> None:
        """Until the node has placed what it has buffered: two seconds without a new selection."""
        while True:
            before, end_s = self.selection, time.monotonic() + 2.0
            self.until(lambda end_s=end_s: time.monotonic() > end_s, "a quiet moment", processes, 10.0)
            if self.selection is before:
                return

    def ask(self, question: Question, processes: list[subprocess.Popen[bytes]]) -> None:
        """Asks, and prints question, answer, evidence and timings."""
        request = SpatialQuery.Request(question=question.text, options=list(question.options))
        request.deadline.sec = 120
        future = self._client.call_async(request)
        self.until(future.done, "an answer", processes, 180.0)
        answer: SpatialAnswer = future.result().answer
        if answer.random_weights and not self._warned:
            self._warned = True
            _say("  (This model has fixed random weights: its TEXT MEANS NOTHING. The selection of frames is real.)")
        _say(f"  Q: {question.text}{' ' + str(list(question.options)) if question.options else ''}")
        value = f" = {answer.value:g} {answer.unit}".rstrip() if answer.has_value else ""
        said = answer.text or "(nothing)"
        _say(f"  A: {said}{value}   [{Status(answer.status).name}] {answer.message}".rstrip())
        stamps = ", ".join(f"{stamp_ns(stamp) / 1e9:.2f}" for stamp in answer.evidence)
        scale = f"; scale from {answer.scale_source}" if answer.scale_source else ""
        _say(f"     evidence: {len(answer.evidence)} frames, at {stamps} s{scale}")
        parts = {name: getattr(answer.timings, name) for name in answer.timings.get_fields_and_field_types()}
        times = ", ".join(f"{name} {part.sec + part.nanosec / 1e9:.2f} s" for name, part in parts.items())
        _say(f"     timings: {times}")


def _main_of(module: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"]


def _parameter(name: str, value: str) -> tuple[str, str]:
    return "-p", f"{name}:={value}"


@contextlib.contextmanager
def _process(command: list[str], log: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in ``log``; ended on leaving, by SIGTERM first."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                _say(f"The {name} did not end within 20 s; killing it.")
                process.kill()
                process.wait()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
