"""Has a checkpoint and its ablations answer the same questions about rooms that no training has seen."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from spatial_mllm_ros.answering.model import ModelOutOfMemoryError
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.scene_questions.scene_question import SceneQuestion
from spatial_mllm_ros.scoring.rooms.baselines import Ablation, SeenClip
from spatial_mllm_ros.scoring.rooms.language_baselines import (
    chance_scores,
    class_baseline,
    constant_baseline,
    held_out_answers,
)
from spatial_mllm_ros.scoring.rooms.room_set import AskedRoom, RoomSet
from spatial_mllm_ros.scoring.rooms.table import Comparison, compare, score_answer
from spatial_mllm_ros.scoring.runner.clips import FrameChoice

_log = logging.getLogger(__name__)
_LOG_EVERY = 20  # rooms, where there is no progress bar

#: The language-only baselines: they know the questions, and the answers about the other half of the rooms.
LANGUAGE_BASELINES = {
    "most frequent": "always the most frequent letter of the type; for numbers the one that would have scored best",
    "class prior": "the median answer for the class asked about; the option that was right most often",
    "chance": "a random letter; for numbers a random other truth of the type (expected score)",
}


@dataclass(frozen=True)
class Column:
    """What a column of the table is; ``sees_room``: see ``baselines.VisualInput``."""

    name: str
    meaning: str
    sees_room: bool
    model: str = ""  #: its checkpoint
    sha256: str = ""


@dataclass
class Answers:
    """Questions with one text per column each."""

    columns: tuple[str, ...]
    questions: list[SceneQuestion] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)

    def scores(self) -> np.ndarray:
        """float64 [columns, questions]."""
        rows = [
            [score_answer(question, text) for text in texts]
            for question, texts in zip(self.questions, self.texts, strict=True)
        ]
        return np.array(rows, np.float64).reshape(len(rows), len(self.columns)).T


@dataclass(frozen=True, eq=False)
class RoomsRun:
    """All answers of an evaluation, and what was left out.

    Attributes:
        answers: those of the main table, one column per ablation.
        frames: the columns of ``walk``.
        walk: answers of the first ablation, one column per evidence size and way of choosing.
        failed: rooms left out, by what went wrong.
    """

    answers: Answers
    frames: tuple[tuple[int, FrameChoice], ...]
    walk: Answers
    failed: Counter[str]

    def main_table(self) -> tuple[Comparison, tuple[Column, ...]]:
        """Scores of the ablations, then of the language-only baselines; and what the columns of the latter are."""
        questions = self.answers.questions
        texts = [held_out_answers(questions, make) for make in (constant_baseline, class_baseline)]
        baselines = [[score_answer(q, text) for q, text in zip(questions, column, strict=True)] for column in texts]
        scores = np.concatenate([self.answers.scores(), np.array([*baselines, chance_scores(questions)])])
        columns = tuple(Column(name, meaning, sees_room=False) for name, meaning in LANGUAGE_BASELINES.items())
        return compare(questions, scores), columns

    def frames_table(self) -> Comparison:
        """One column for each of ``frames``."""
        return compare(self.walk.questions, self.walk.scores())


def answer_rooms(rooms: RoomSet, ablations: Sequence[Ablation]) -> RoomsRun:
    """Has every ablation answer every question; the first one also with every choice of frames.

    All answer the same questions: a room on which one of them fails is left out for all, logged and counted.
    """
    config = rooms.config
    frames = tuple((count, choice) for count in config.compared_frames for choice in FrameChoice)
    names = tuple(f"{count} {choice.value}" for count, choice in frames)
    run = RoomsRun(Answers(tuple(ablation.name for ablation in ablations)), frames, Answers(names), rooms.failed)
    first_name = ablations[0].name
    scored, total, done = 0.0, 1e-9, 0
    before: AskedRoom | None = None
    with tqdm(total=config.worlds, unit="room", desc="rooms", disable=not sys.stderr.isatty()) as bar:
        for group in rooms:
            for index, room in enumerate(group):
                other = group[index - 1] if len(group) > 1 else before
                try:
                    _answer(room, other, ablations, run)
                except (SpatialMllmError, ModelOutOfMemoryError, RuntimeError) as error:
                    run.failed[getattr(error, "code", type(error).__name__)] += 1
                    _log.warning("%s is left out: %s", room.name, error)
                else:
                    first = len(room.questions)
                    asked = (
                        zip(run.answers.questions[-first:], run.answers.texts[-first:], strict=True) if first else ()
                    )
                    scored += sum(score_answer(question, texts[0]) for question, texts in asked)
                    total += first
                    bar.set_postfix_str(f"{first_name} micro {100 * scored / total:.1f} (n = {total:.0f})")
                bar.update()
                done += 1
                if done % _LOG_EVERY == 0 and bar.disable:
                    _log.info("%d of %d rooms, %s micro %.1f", done, config.worlds, first_name, 100 * scored / total)
            before = group[-1]
    return run


def _answer(room: AskedRoom, other: AskedRoom | None, ablations: Sequence[Ablation], run: RoomsRun) -> None:
    shown_instead = None if other is None else SeenClip(other.clip, other.uniform)
    seen = SeenClip(room.clip, room.uniform, shown_instead)
    by_ablation = [ablation.answers(seen, room.questions) for ablation in ablations]
    by_frames = [ablations[0].answers(SeenClip(room.clip, room.chosen[key]), room.walk_questions) for key in run.frames]
    for answers, questions, columns in (
        (run.answers, room.questions, by_ablation),
        (run.walk, room.walk_questions, by_frames),
    ):
        answers.questions.extend(questions)
        answers.texts.extend(zip(*columns, strict=True))
