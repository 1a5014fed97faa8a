"""Question files: a YAML list of questions about a recording, with the moments to ask them."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.errors import QuestionError
from spatial_mllm_ros.storage import write_text

_MAX_TYPE_CHARS = 64
_FIELDS = ("question", "options", "at", "truth", "tolerance", "type")
_PERCENT = re.compile(r"\s*(.*?)\s*%\s*")


@dataclass(frozen=True)
class TimedQuestion:
    """A question about a recording, with its truth and the moment to ask it.

    Attributes:
        at_s: seconds since the first frame; None: after the last frame.
        truth: the right answer where it is known: a number, a text, or the text or letter of an option.
        tolerance: how far a number may be from the truth, in its unit; None where no tolerance is stated.
        question_type: a name under which questions are averaged; the form of the answer where no name is given.
    """

    question: Question
    at_s: float | None = None
    truth: str | int | float | None = None
    tolerance: float | None = None
    question_type: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "question_type", self.question_type or self.question.form.name.lower())

    @property
    def right_option(self) -> int | None:
        """Index of the option that the truth names by its text or by its letter; None where it names none."""
        if self.truth is None:
            return None
        truth, options = _plain(str(self.truth)), self.question.options
        by_text = [index for index, option in enumerate(options) if _plain(option) == truth]
        letters = dict(zip(string.ascii_lowercase, range(len(options)), strict=False))
        return by_text[0] if by_text else letters.get(truth)

    @property
    def truth_text(self) -> str:
        """The truth for people: the right option's text, or the number with its tolerance; "" where it is not known."""
        if self.truth is None:
            return ""
        if self.right_option is not None:
            return self.question.options[self.right_option]
        return str(self.truth) if self.tolerance is None else f"{self.truth} ± {self.tolerance:g}"


def load_questions(path: Path) -> tuple[TimedQuestion, ...]:
    """Reads a YAML list of mappings with ``question`` and optionally ``options``, ``at`` (seconds), ``truth``,
    ``tolerance`` (in the truth's unit, or as "10 %" of it) and ``type``.

    Raises:
        QuestionError: naming the file, the entry (counted from 1) and the field.
    """
    try:
        # BaseLoader leaves every scalar as it is written: the options [yes, no] and 1.50 stay texts.
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise QuestionError(f"The questions file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise QuestionError(f"The questions file {path} is not valid YAML: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise QuestionError(f"{path} must hold a list: '- question: ...' for each question; it holds {_kind(entries)}.")
    return tuple(_entry(entry, f"{path.name}, entry {number}") for number, entry in enumerate(entries, 1))


def save_questions(path: Path, questions: Iterable[TimedQuestion]) -> None:
    """Writes questions as ``load_questions`` reads them.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    entries: list[dict[str, str | list[str]]] = []
    for timed in questions:
        fields = {"at": timed.at_s, "truth": timed.truth, "tolerance": timed.tolerance, "type": timed.question_type}
        entries.append({"question": timed.question.text})
        if timed.question.options:
            entries[-1]["options"] = list(timed.question.options)
        entries[-1] |= {name: str(value) for name, value in fields.items() if value is not None}
    write_text(path, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=120))


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
    truth = _truth(entry.get("truth"), where, is_choice=bool(options))
    question_type = entry.get("type", "")
    if not isinstance(question_type, str) or len(question_type) > _MAX_TYPE_CHARS:
        raise QuestionError(f"{where}, field 'type': expected a name of at most {_MAX_TYPE_CHARS} characters.")
    timed = TimedQuestion(
        question,
        _seconds(entry.get("at"), where),
        truth,
        _tolerance(entry.get("tolerance"), truth, where),
        question_type.strip(),
    )
    if options and truth is not None and timed.right_option is None:
        raise QuestionError(
            f"{where}, field 'truth': expected the text or the letter of one of the options, got {truth!r}."
        )
    return timed


def _plain(text: str) -> str:
    """The text as it is compared: lower case, white space collapsed, without full stops at its end."""
    return " ".join(text.lower().split()).rstrip(".")


def _seconds(value: object, where: str) -> float | None:
    if value is None:
        return None
    seconds = _number(value)
    if seconds is None or seconds < 0:
        raise QuestionError(f"{where}, field 'at': expected seconds since the first frame, 0 or more, got {value!r}.")
    return float(seconds)


def _truth(value: object, where: str, *, is_choice: bool) -> str | int | float | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise QuestionError(f"{where}, field 'truth': expected a text or a number, got {_kind(value)}.")
    number = None if is_choice else _number(value)
    return value if number is None else number


def _tolerance(value: object, truth: str | int | float | None, where: str) -> float | None:
    if value is None:
        return None
    if not isinstance(truth, (int, float)):
        raise QuestionError(f"{where}, field 'tolerance': it needs a 'truth' that is a number; the truth is {truth!r}.")
    percent = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    number = _number(percent[1] if percent else value)
    if number is None or number < 0:
        raise QuestionError(
            f"{where}, field 'tolerance': expected a number of 0 or more, or one with a %, got {value!r}."
        )
    return abs(truth) * number / 100 if percent else float(number)


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
