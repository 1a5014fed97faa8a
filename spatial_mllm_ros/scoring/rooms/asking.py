"""What a demo asks about a scene with known truth: what the checkpoint is good at, by its own evaluation."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
_LEAST_TYPES = 3  # are asked about, also by a checkpoint that is good at fewer


@dataclass(frozen=True)
class KnownStrengths:
    """What the file beside some weights says of them.

    Attributes:
        of: best gain first; empty where nothing is known.
        rooms: in words, which rooms it was found on.
        camera: through which those rooms were seen, see ``sensor.CAMERAS``.
    """

    of: tuple[Strength, ...] = ()
    rooms: str = ""
    camera: str = "noisy"

    def named(self, kind: QuestionType) -> Strength | None:
        """That of one type, None where it is not known."""
        return next((strength for strength in self.of if strength.type == kind.value), None)


def known_strengths(checkpoint: Path) -> KnownStrengths:
    """The strengths of a checkpoint folder; none where it has no evaluation, or one of other weights (logged).

    Raises:
        SourceError: the evaluation beside the weights cannot be read.
        CheckpointError: the folder is no checkpoint.
    """
    path = checkpoint / RESULTS_FILE
    if not path.is_file():
        return KnownStrengths()
    results = read_results(path)
    if results["model"]["sha256"] != sha256_of(*read_checkpoint(checkpoint).files):
        _log.warning("%s is about other weights than those beside it; make it again, it is not used.", path)
        return KnownStrengths()
    settings = results["settings"]
    rooms = f"{settings['worlds']} unseen rooms" if settings["split"] == "test" else f"{settings['worlds']} rooms"
    return KnownStrengths(tuple(strengths_of(results)), rooms, str(settings["camera"]))


def questions_to_ask(
    scene: SceneAnnotation, strengths: Sequence[Strength], *, count: int, seed: int = 0
) -> list[SceneQuestion]:
    """``count`` questions, or as many as there are, about what the scene can be asked, in turn through the types.

    The types are those that the checkpoint surely answers better than guessing, best first. Where these are too few,
    the next best come after them; where nothing is known, all types. Which question of a type, chance decides, not
    whether it will be answered well.
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
    """The truth with its unit, or the letter with the option's text."""
    if question.options:
        return f"{question.truth}. {question.truth_text}"
    return f"{question.truth}{_UNITS.get(question.type, '')}"


def score_in_words(question: SceneQuestion, text: str) -> str:
    """How the text scores, by the rule of VSI-Bench."""
    score = score_answer(question, text)
    if question.type.is_number:
        return f"scores {100 * score:.0f} of 100 (mean relative accuracy)"
    return "right" if score else "wrong"


def strength_in_words(strength: Strength, rooms: str) -> str:
    """How often a type is answered rightly."""
    verb = "scores" if QuestionType(strength.type).is_number else "right in"
    return (
        f"{strength.type}: {verb} {100 * strength.score:.0f} % (95 %: {100 * strength.low:.0f} to "
        f"{100 * strength.high:.0f}) of {strength.questions} questions about {rooms}; the best guess without looking "
        f"{100 * strength.guess:.0f} %"
    )


def summary_lines(known: KnownStrengths) -> list[str]:
    """What the checkpoint is good at, and what not."""
    if not known.of:
        return ["How often this checkpoint is right is not known: there is no evaluation.json beside its weights."]
    lines = []
    for title, sure in (
        ("Better than guessing, beyond doubt, at:", True),
        ("NOT shown to be better than guessing at (its answers to these mean little):", False),
    ):
        listed = [f"  {strength_in_words(s, known.rooms)}" for s in known.of if s.sure == sure]
        lines += [title, *(listed or ["  nothing"])]
    return lines
