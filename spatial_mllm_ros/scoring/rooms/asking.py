"""Chooses the questions of the demo: what the checkpoint is good at, according to its own evaluation."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_ros.answering.parsing import parse_answer
from spatial_mllm_ros.models.checkpoints.files import read_checkpoint
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.scene_questions.balance import AnswerBalancer
from spatial_mllm_ros.scene_questions.builder import candidate_questions
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation
from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion
from spatial_mllm_ros.scoring.rooms.results import RESULTS_FILE, Strength, read_results, strengths_of
from spatial_mllm_ros.scoring.rooms.table import score_answer
from spatial_mllm_ros.storage import sha256_of

_log = logging.getLogger(__name__)
_UNITS = {QuestionType.DISTANCE: " m", QuestionType.SIZE: " cm", QuestionType.ROOM: " m^2"}
_LEAST_TYPES = 3  # that are asked about, even if the checkpoint is good at fewer


@dataclass(frozen=True)
class KnownStrengths:
    """The strengths of a checkpoint according to the evaluation beside its weights.

    Attributes:
        of: best gain first; empty without an evaluation.
        rooms: in words, the rooms of the evaluation.
        camera: name of their camera, see ``sensor.CAMERAS``.
    """

    of: tuple[Strength, ...] = ()
    rooms: str = ""
    camera: str = "noisy"

    def named(self, kind: QuestionType) -> Strength | None:
        """The strength at one type; None where it is not known."""
        return next((strength for strength in self.of if strength.type == kind.value), None)


def known_strengths(checkpoint: Path) -> KnownStrengths:
    """The strengths of a checkpoint folder; none without an evaluation, or with one of other weights (logged).

    Raises:
        SourceError: the evaluation beside the weights cannot be read.
        CheckpointError: the folder is no checkpoint.
    """
    path = checkpoint / RESULTS_FILE
    if not path.is_file():
        return KnownStrengths()
    results = read_results(path)
    if results["model"]["sha256"] != sha256_of(*read_checkpoint(checkpoint).files):
        _log.warning("%s is about other weights than those beside it and is not used; make it again.", path)
        return KnownStrengths()
    settings = results["settings"]
    rooms = f"{settings['worlds']} unseen rooms" if settings["split"] == "test" else f"{settings['worlds']} rooms"
    return KnownStrengths(tuple(strengths_of(results)), rooms, str(settings["camera"]))


def questions_to_ask(
    scene: SceneAnnotation, strengths: Sequence[Strength], *, count: int, seed: int = 0
) -> list[SceneQuestion]:
    """``count`` questions about a scene, or as many as there are, in turn through the types of questions.

    The types are those that the checkpoint surely answers better than the baselines, best first; if these are too few,
    the next best follow; without an evaluation all types are used. The question of a type is chosen at random,
    not by how well it will be answered.
    """
    by_type: dict[str, list[SceneQuestion]] = defaultdict(list)
    candidates = candidate_questions(scene, seed=seed, vocabulary=LABELS)
    for question in AnswerBalancer(seed=seed).choose(candidates, per_type=count):
        by_type[question.type.value].append(question)
    order = [strength.type for strength in strengths if strength.type in by_type]
    sure = [strength.type for strength in strengths if strength.sure and strength.type in by_type]
    types = sure if len(sure) >= _LEAST_TYPES else order[:_LEAST_TYPES]
    queues = [by_type[kind] for kind in (types or list(by_type))]
    turns = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)][:count]


def truth_in_words(question: SceneQuestion) -> str:
    """The truth with its unit, or the option's text."""
    if question.options:
        return question.truth_text
    return f"{question.truth}{_UNITS.get(question.type, '')}"


def score_in_words(question: SceneQuestion, text: str) -> str:
    """How the text of an answer scores, by the rule of VSI-Bench. For a choice it is an option's text or its letter."""
    choice = parse_answer(question.question, text).choice
    score = score_answer(question, text if choice is None else chr(ord("A") + choice))
    if question.type.is_number:
        return f"scores {100 * score:.0f} of 100 (mean relative accuracy)"
    return "right" if score else "wrong"


def strength_in_words(strength: Strength, rooms: str) -> str:
    """How well a type is answered, compared with the best baseline."""
    verb = "scores" if QuestionType(strength.type).is_number else "right in"
    return (
        f"{strength.type}: {verb} {100 * strength.score:.0f} % (95 %: {100 * strength.low:.0f} to "
        f"{100 * strength.high:.0f}) of {strength.questions} questions about {rooms}; the best baseline without the "
        f"room {100 * strength.baseline_score:.0f} %"
    )


def summary_lines(known: KnownStrengths) -> list[str]:
    """What the checkpoint is good at, and what it is not good at."""
    if not known.of:
        return ["How often this checkpoint is right is not known: there is no evaluation.json beside its weights."]
    lines = []
    for title, sure in (
        ("Better than every baseline without the room, beyond the 95 % interval, at:", True),
        ("NOT shown to be better than these baselines at (its answers to these mean little):", False),
    ):
        listed = [f"  {strength_in_words(s, known.rooms)}" for s in known.of if s.sure == sure]
        lines += [title, *(listed or ["  nothing"])]
    return lines
