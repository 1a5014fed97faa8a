"""The command `spatial_mllm demo`: plays a recording into a running node, asks it questions and draws a picture.

Three processes take part: the player publishes the recording, the node answers, and this process asks questions.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spatial_mllm_ros.answering.answer import Status
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.setup import SessionConfig
from spatial_mllm_ros.models.checkpoints.bundled import bundled_checkpoint
from spatial_mllm_ros.msg import FrameSelection
from spatial_mllm_ros.playback.domains import use_own_domain
from spatial_mllm_ros.playback.live_run import (
    STARTUP_S,
    LiveClient,
    LiveRunError,
    live_client,
    node_command,
    node_parameters,
    player_command,
    running,
)
from spatial_mllm_ros.recordings.sources import FrameSource, open_source
from spatial_mllm_ros.replay.live_picture import write_live_picture
from spatial_mllm_ros.replay.picture import KnownScene
from spatial_mllm_ros.rooms.world.world import split_seed
from spatial_mllm_ros.rooms.writers import RecordingConfig, scene_path, write_room
from spatial_mllm_ros.ros.conversions import stamp_ns
from spatial_mllm_ros.ros.environment import use_shared_memory_profile
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation, read_scene
from spatial_mllm_ros.scene_questions.scene_question import SceneQuestion
from spatial_mllm_ros.scoring.rooms.asking import (
    KnownStrengths,
    known_strengths,
    questions_to_ask,
    score_in_words,
    strength_in_words,
    summary_lines,
    truth_in_words,
)

_ROOM = 0  # of the test split: two rooms, where choosing frames pays
_FRAMES, _RATE_HZ = 200, 4.0  # 50 s, which the camera needs to see both
_SPEED = 4
_FRAMES_BEFORE_THE_FIRST_QUESTION = 4
_QUESTIONS = 6
_SHORT = 40  # characters of an answer in the picture
#: Asked about a recording without an annotation.
_OF_ANY_ROOM = (
    Question("How many chairs are in this room?"),
    Question("How far is the chair from the door?"),
    Question("What is the size of this room (in square meters)?"),
    Question("Which of these objects is closest to the window?", ("table", "chair", "shelf", "door")),
)
PICTURE_FILE = "demo.png"


def run(source: Path | None, out_dir: Path, checkpoint: str) -> int:
    """Runs the command and returns its exit code.

    Where an annotation lies beside the recording (NAME.scene.json), the questions are of the types that the checkpoint
    answers best, and truth and score are printed with every answer.

    Args:
        source: a recording; None for a walk through a generated room, which is rendered first.
        out_dir: gets the picture and the logs; made where it does not exist.
        checkpoint: folder of the model; "" for the bundled one.

    Raises:
        SpatialMllmError: the recording, the checkpoint or one of the processes fails; the message says which.
    """
    use_own_domain()
    use_shared_memory_profile()
    out_dir.mkdir(parents=True, exist_ok=True)
    speed = 1
    with contextlib.ExitStack() as stack:
        recording = None if source is None else stack.enter_context(open_source(source))
        strengths = known_strengths(Path(checkpoint) if checkpoint else bundled_checkpoint())
        if source is None or recording is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spatial_mllm_demo_")))
            _say(f"No recording given: rendering a walk through room {_ROOM} of the test split, never trained on.")
            camera = strengths.camera  # the one that its figures were found with
            walk = RecordingConfig(_FRAMES, _RATE_HZ, realistic=camera != "perfect", blur=camera == "realistic")
            source = write_room(folder, split_seed("test", _ROOM), "rgbd", walk)
            speed = _SPEED
            recording = stack.enter_context(open_source(source))
        scene = read_scene(scene_path(source)) if scene_path(source).is_file() else None
        asker = _Asker(strengths)
        selection = _play_and_ask(recording, source, speed, out_dir, checkpoint, asker, _questions(scene, strengths))
        gains = {stamp_ns(stamp): gain for stamp, gain in zip(selection.stamps, selection.gains, strict=True)}
        figures = write_live_picture(
            out_dir / PICTURE_FILE, recording, gains, checkpoint, known=_known(scene, asker) if scene else None
        )
    if scene is not None:
        _say("\nHow far to trust this checkpoint:")
        for line in summary_lines(strengths):
            _say(f"  {line}")
    _say(
        f"\nCoverage, in voxels of {figures.voxel_size:.3g} {'m' if figures.unit == 'm' else '(relative)'}: "
        f"{len(gains)} selected frames {figures.selected}, as many uniform ones {figures.uniform}, "
        f"offline greedy {figures.offline_greedy}, all frames {figures.total}."
    )
    _say(f"Picture: {out_dir / PICTURE_FILE}")
    return 0


def _questions(scene: SceneAnnotation | None, strengths: KnownStrengths) -> Sequence[SceneQuestion | Question]:
    known = questions_to_ask(scene, strengths.of, count=_QUESTIONS) if scene is not None else []
    return known or _OF_ANY_ROOM


def _play_and_ask(
    recording: FrameSource,
    source: Path,
    speed: int,
    out_dir: Path,
    checkpoint: str,
    asker: _Asker,
    questions: Sequence[SceneQuestion | Question],
) -> FrameSelection:
    first = next(iter(recording))
    with_depth = ", depth and poses" if first.depth_m is not None and first.scene_from_cam is not None else ""
    _say(f"Recording: {recording.name} ({recording.frame_count} frames{with_depth}).")
    node_log, player_log = out_dir / "node.log", out_dir / "player.log"
    parameters = node_parameters(recording, SessionConfig(checkpoint=checkpoint))
    with (
        running(node_command(parameters), node_log, "node") as node,
        live_client("spatial_demo", [node]) as client,
    ):
        client.until(client.ready, "the node's service /spatial_query", STARTUP_S)
        with running(player_command(source, "--rate", str(speed)), player_log, "player") as player:
            client.until(
                lambda: len(client.selected()) >= _FRAMES_BEFORE_THE_FIRST_QUESTION or player.poll() == 0,
                "the first selected frames",
                STARTUP_S,
            )
            _say("\nWhile the camera runs, and has seen only a part of the scene:")
            asker.ask(client, questions[0], final=False)
            client.until_played(player, player_log)
        client.until_settled()
        _say("\nAfter the last frame:")
        for question in questions:
            asker.ask(client, question)
        if client.selection is None:
            raise LiveRunError(f"The node selected no frame; see {node_log}.")
        return client.selection


class _Asker:
    """Asks, and prints question, answer, truth, evidence and timings.

    Attributes:
        told: one line for each scored answer, for the picture.
        asked: the questions of these answers.
    """

    def __init__(self, strengths: KnownStrengths) -> None:
        self._strengths = strengths
        self._warned = False
        self.told: list[str] = []
        self.asked: list[SceneQuestion] = []

    def ask(self, client: LiveClient, asked: SceneQuestion | Question, *, final: bool = True) -> None:
        """Asks one question; with ``final`` the node has seen the whole recording, so the answer is scored."""
        question = asked.question if isinstance(asked, SceneQuestion) else asked
        answer = client.ask(question)
        if answer.random_weights and not self._warned:
            self._warned = True
            _say("  (This model has fixed random weights: its TEXT MEANS NOTHING. The selection of frames is real.)")
        asked_text = f"{' '.join(question.text.split())}{' ' + str(list(question.options)) if question.options else ''}"
        _say(f"  Q: {asked_text}")
        value = f" = {answer.value:g} {answer.unit}".rstrip() if answer.has_value else ""
        said = answer.text or "(nothing)"
        _say(f"  A: {said}{value}   [{Status(answer.status).name}] {answer.message}".rstrip())
        if isinstance(asked, SceneQuestion):
            result = score_in_words(asked, answer.text) if final else "not scored yet"
            _say(f"     truth: {truth_in_words(asked)}   -> {result}")
            if final:
                self.asked.append(asked)
                short = said if len(said) <= _SHORT else f"{said[:_SHORT]} ..."
                self.told.append(f"{asked_text}   answer: {short}   truth: {truth_in_words(asked)}   {result}")
                if strength := self._strengths.named(asked.type):
                    _say(f"     {strength_in_words(strength, self._strengths.rooms)}")
        stamps = ", ".join(f"{stamp_ns(stamp) / 1e9:.2f}" for stamp in answer.evidence)
        scale = f"; scale from {answer.scale_source}" if answer.scale_source else ""
        _say(f"     evidence: {len(answer.evidence)} frames, at {stamps} s{scale}")
        parts = {name: getattr(answer.timings, name) for name in answer.timings.get_fields_and_field_types()}
        times = ", ".join(f"{name} {part.sec + part.nanosec / 1e9:.2f} s" for name, part in parts.items())
        _say(f"     timings: {times}\n")


def _known(scene: SceneAnnotation, asker: _Asker) -> KnownScene:
    """Walls, the objects of the questions, and the answers, for the picture."""
    wanted = {number for question in asker.asked for number in question.objects}
    outlines = [np.column_stack([room.polygon_m, np.zeros(len(room.polygon_m))]) for room in scene.rooms]
    things = [(thing.label, thing.box.corners()[:4]) for thing in scene.objects if thing.id in wanted]
    return KnownScene(outlines, things, asker.told)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
