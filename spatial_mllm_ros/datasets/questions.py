"""Question files: a YAML list of what to ask about a recording, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.errors import QuestionError

_FIELDS = ("question", "options", "at", "truth")


@dataclass(frozen=True)
class TimedQuestion:
    """A question with the moment to ask it.

    Attributes:
        at_s: seconds since the first frame; None: after the last frame.
        truth: the right answer where it is known; goes to the report as it is.
    """

    question: Question
    at_s: float | None = None
    truth: str | int | float | None = None


def load_questions(path: Path) -> tuple[TimedQuestion, ...]:
    """Reads a YAML list of mappings with ``question`` and, as wanted, ``options``, ``at`` (s), ``truth``.

    Raises:
        QuestionError: naming the file, the entry (counted from 1) and the field.
    """
    try:
        # BaseLoader leaves every scalar as it is written: the options [yes, no] and 1.50 stay text.
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise QuestionError(f"The questions file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise QuestionError(f"The questions file {path} is not valid YAML: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise QuestionError(f"{path} must hold a list: '- question: ...' for each question; it holds {_kind(entries)}.")
    return tuple(_entry(entry, f"{path.name}, entry {number}") for number, entry in enumerate(entries, 1))


def _entry(entry: object, where: str) -> TimedQuestion:
    if not isinstance(entry, dict):
        raise QuestionError(f"{where}: expected a mapping with the field 'question', got {_kind(entry)}.")
    if unknown := sorted(set(entry) - set(_FIELDS)):
        raise QuestionError(f"{where}: unknown field {unknown[0]!r}; allowed are {', '.join(_FIELDS)}.")
    text = entry.get("question")
    if not isinstance(text, str):
        raise QuestionError(f"{where}, field 'question': expected a text, got {_kind(text)}.")
    options = entry.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise QuestionError(f"{where}, field 'options': expected a list of texts, got {options!r}.")
    try:
        question = Question(text, tuple(options))
    except QuestionError as error:
        raise QuestionError(f"{where}: {error}") from error
    return TimedQuestion(question, _seconds(entry.get("at"), where), _truth(entry.get("truth"), where))


def _seconds(value: object, where: str) -> float | None:
    if value is None:
        return None
    seconds = _number(value)
    if seconds is None or seconds < 0:
        raise QuestionError(f"{where}, field 'at': expected seconds since the first frame, 0 or more, got {value!r}.")
    return float(seconds)


def _truth(value: object, where: str) -> str | int | float | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise QuestionError(f"{where}, field 'truth': expected a text or a number, got {_kind(value)}.")
    number = _number(value)
    return value if number is None else number


def _number(value: object) -> int | float | None:
    if not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and value.strip().lstrip("+-").isdigit() else number


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: f"the text {value!r}", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)
