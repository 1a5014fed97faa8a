"""Questions about a scene with their answers: types and wording of VSI-Bench (arXiv 2412.14171), and one more type."""

from __future__ import annotations

import string
from dataclasses import dataclass
from enum import Enum
from typing import Any

from spatial_mllm_ros.answering.question import Question


class QuestionType(str, Enum):
    """Types of questions; the values are the benchmark's names. ``PRESENCE`` is not a type of the benchmark."""

    COUNT = "object_counting"
    DISTANCE = "object_abs_distance"
    SIZE = "object_size_estimation"
    ROOM = "room_size_estimation"
    CLOSEST = "object_rel_distance"
    DIRECTION_EASY = "object_rel_direction_easy"
    DIRECTION_MEDIUM = "object_rel_direction_medium"
    DIRECTION_HARD = "object_rel_direction_hard"
    ROUTE = "route_planning"
    ORDER = "obj_appearance_order"
    PRESENCE = "object_presence"

    @property
    def is_number(self) -> bool:
        """Whether the answer is a number, scored by mean relative accuracy; other answers are scored by exact match."""
        return self in (QuestionType.COUNT, QuestionType.DISTANCE, QuestionType.SIZE, QuestionType.ROOM)


WORDING: dict[QuestionType, str] = {
    QuestionType.COUNT: "How many {a}(s) are in this room?",
    QuestionType.DISTANCE: (
        "Measuring from the closest point of each object, what is the distance between the {a} and the {b} (in meters)?"
    ),
    QuestionType.SIZE: (
        "What is the length of the longest dimension (length, width, or height) of the {a}, measured in centimeters?"
    ),
    QuestionType.ROOM: (
        "What is the size of this room (in square meters)? If multiple rooms are shown, estimate the size of the "
        "combined space."
    ),
    QuestionType.CLOSEST: (
        "Measuring from the closest point of each object, which of these objects ({options}) is the closest to the {a}?"
    ),
    QuestionType.DIRECTION_EASY: (
        "If I am standing by the {a} and facing the {b}, is the {c} to the left or the right of the {b}?"
    ),
    QuestionType.DIRECTION_MEDIUM: (
        "If I am standing by the {a} and facing the {b}, is the {c} to my left, right, or back?\n"
        "An object is to my back if I would have to turn at least 135 degrees in order to face it."
    ),
    QuestionType.DIRECTION_HARD: (
        "If I am standing by the {a} and facing the {b}, is the {c} to my front-left, front-right, back-left, or "
        "back-right?\nThe directions refer to the quadrants of a Cartesian plane (if I am standing at the origin and "
        "facing along the positive y-axis)."
    ),
    QuestionType.ROUTE: (
        "You are a robot beginning at the {a} facing the {b}. You want to navigate to the {c}. You will perform "
        "the following actions (Note: for each [please fill in], choose either 'turn back,' 'turn left,' or 'turn "
        "right.'): {steps} You have reached the final destination."
    ),
    QuestionType.ORDER: (
        "What will be the first-time appearance order of the following categories in the video: {options}?"
    ),
    QuestionType.PRESENCE: "Is there a {a} in this room?",
}


@dataclass(frozen=True)
class SceneQuestion:
    """A question whose answer follows from the scene.

    Attributes:
        scene: name of the scene.
        type: what is asked.
        text: the question.
        options: choices without letters; empty if the answer is a number.
        truth: the number as text, or the letter of the right option.
        bin: class of answers within the type; answers are balanced over bins.
        labels: classes that the question is about.
        objects: ids of the objects that the answer was computed from.
    """

    scene: str
    type: QuestionType
    text: str
    options: tuple[str, ...]
    truth: str
    bin: str
    labels: tuple[str, ...] = ()
    objects: tuple[int, ...] = ()

    @property
    def question(self) -> Question:
        """The question in the form that the answering session takes."""
        return Question(self.text, self.options)

    @property
    def truth_text(self) -> str:
        """The right option's text, or the number."""
        return self.options[ord(self.truth) - ord("A")] if self.options else self.truth

    def record(self, number: int, *, dataset: str = "rooms") -> dict[str, Any]:
        """One line of a question file, with the benchmark's field names."""
        options = [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, self.options, strict=False)]
        return {
            "id": number,
            "dataset": dataset,
            "scene_name": self.scene,
            "question_type": self.type.value,
            "question": self.text,
            "options": options or None,
            "ground_truth": self.truth,
        }
