"""The main job on one screen: a recording played into the running node, questions asked, one picture drawn.

Three real processes: the player publishes the recording, the node answers, and this one asks, as a robot would.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

from spatial_mllm_ros.answering.answer import Status
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.datasets.rooms.world import split_seed
from spatial_mllm_ros.datasets.rooms.writers import RecordingConfig, write_room
from spatial_mllm_ros.datasets.sources import FrameSource, open_source
from spatial_mllm_ros.evaluation.live_picture import write_live_picture
from spatial_mllm_ros.msg import FrameSelection
from spatial_mllm_ros.ros.conversions import stamp_ns
from spatial_mllm_ros.ros.live_run import (
    STARTUP_S,
    LiveClient,
    LiveRunError,
    live_client,
    node_command,
    player_command,
    running,
    use_own_domain,
)

_ROOM = 0  # of the test split: two rooms, where choosing frames pays
_WALK = RecordingConfig(frames=200, rate_hz=4.0)  # 50 s, which the camera needs to see both
_SPEED = 4
_FRAMES_BEFORE_THE_FIRST_QUESTION = 4
_DURING = Question("How many chairs are in this room?")
_AFTER = (
    Question("How far is the chair from the door?"),
    Question("What is the size of this room (in square meters)?"),
    Question("Which of these objects is closest to the window?", ("table", "chair", "shelf", "door")),
)
PICTURE_FILE = "demo.png"


def run(source: Path | None, out_dir: Path, checkpoint: str) -> int:
    """The command `spatial_mllm demo`; returns its exit code.

    Args:
        source: a recording; None for a walk through a generated room, rendered on the spot.
        out_dir: where the picture goes; made if need be.
        checkpoint: folder of the model; "" for the one in the box.

    Raises:
        SpatialMllmError: the recording, the checkpoint or one of the processes fails; the sentence says which.
    """
    use_own_domain()
    out_dir.mkdir(parents=True, exist_ok=True)
    speed = 1
    with contextlib.ExitStack() as stack:
        if source is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spatial_mllm_demo_")))
            _say("No recording given: rendering a walk through a generated room.")
            source = write_room(folder, split_seed("test", _ROOM), "rgbd", _WALK)
            speed = _SPEED
        recording = stack.enter_context(open_source(source))
        selection = _play_and_ask(recording, source, speed, out_dir, checkpoint)
        gains = {stamp_ns(stamp): gain for stamp, gain in zip(selection.stamps, selection.gains, strict=True)}
        figures = write_live_picture(out_dir / PICTURE_FILE, recording, gains, checkpoint)
    _say(
        f"\nCoverage, in voxels of {figures.voxel_size:.3g} {'m' if figures.unit == 'm' else '(relative)'}: "
        f"{len(gains)} selected frames {figures.selected}, as many uniform ones {figures.uniform}, "
        f"offline greedy {figures.offline_greedy}, all frames {figures.total}."
    )
    _say(f"Picture: {out_dir / PICTURE_FILE}")
    return 0


def _play_and_ask(recording: FrameSource, source: Path, speed: int, out_dir: Path, checkpoint: str) -> FrameSelection:
    first = next(iter(recording))
    with_depth = ", depth and poses" if first.depth_m is not None and first.scene_from_cam is not None else ""
    _say(f"Recording: {recording.name} ({recording.frame_count} frames{with_depth}).")
    node_log, player_log = out_dir / "node.log", out_dir / "player.log"
    with (
        running(node_command(recording, {"checkpoint": checkpoint}), node_log, "node") as node,
        live_client("spatial_demo", [node]) as client,
    ):
        client.until(client.ready, "the node's service /spatial_query", STARTUP_S)
        asker = _Asker(client)
        with running(player_command(source, "--rate", str(speed)), player_log, "player") as player:
            client.until(
                lambda: len(client.selected()) >= _FRAMES_BEFORE_THE_FIRST_QUESTION or player.poll() == 0,
                "the first selected frames",
                STARTUP_S,
            )
            _say("\nWhile the camera runs:")
            asker.ask(_DURING)
            client.until_played(player, player_log)
        client.until_settled()
        _say("\nAfter the last frame:")
        for question in _AFTER:
            asker.ask(question)
        if client.selection is None:
            raise LiveRunError(f"The node selected no frame; see {node_log}.")
        return client.selection


class _Asker:
    """Asks, and prints question, answer, evidence and timings."""

    def __init__(self, client: LiveClient) -> None:
        self._client = client
        self._warned = False

    def ask(self, question: Question) -> None:
        """One question."""
        answer = self._client.ask(question)
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


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
