"""Questions as data: checked text and options, and the kind of answer that they ask for."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum

from spatial_mllm_ros.errors import QuestionError

MAX_QUESTION_CHARS = 1000
MAX_OPTION_CHARS = 200
MAX_OPTIONS = 26  # one letter each


class AnswerForm(Enum):
    """What kind of answer a question asks for; the value is the unit of a number, as in ``Answer.unit``."""

    COUNT = ""
    METRES = "m"
    CENTIMETRES = "cm"
    SQUARE_METRES = "m^2"
    CHOICE = "choice"
    TEXT = "text"

    @property
    def is_number(self) -> bool:
        """True where the answer is one number."""
        return self not in (AnswerForm.CHOICE, AnswerForm.TEXT)


@dataclass(frozen=True)
class Question:
    """A question a person or a robot asks, checked on construction.

    Attributes:
        text: 1 to 1000 characters after stripping; line breaks and tabs count as spaces.
        options: none, or 2 to 26 different choices of 1 to 200 characters, without their letters.

    Raises:
        QuestionError: naming the offending part and what is allowed.
    """

    text: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _checked(self.text, "question", MAX_QUESTION_CHARS))
        if len(self.options) == 1 or len(self.options) > MAX_OPTIONS:
            raise QuestionError(
                f"The question has {len(self.options)} options; give none, or 2 to {MAX_OPTIONS} of them."
            )
        checked = tuple(_checked(o, f"option {i + 1}", MAX_OPTION_CHARS) for i, o in enumerate(self.options))
        if len(set(checked)) != len(checked):
            raise QuestionError("Two options of the question are the same; make every option different.")
        object.__setattr__(self, "options", checked)

    @property
    def form(self) -> AnswerForm:
        """The kind of answer that the question asks for, read off its wording."""
        return AnswerForm.CHOICE if self.options else _number_form(self.text)


def _checked(text: str, what: str, limit: int) -> str:
    # Line breaks and tabs are harmless in a question typed by a person; every other control or format character
    # (terminal escapes, bidirectional overrides, zero-width characters) has no business in one.
    spaced = re.sub(r"[\t\r\n]+", " ", text).strip()
    if not spaced:
        raise QuestionError(f"The {what} is empty; write it as a sentence, for example 'How many chairs are there?'.")
    if len(spaced) > limit:
        raise QuestionError(f"The {what} has {len(spaced)} characters; at most {limit} are allowed.")
    for position, char in enumerate(spaced):
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn"):
            raise QuestionError(
                f"The {what} has the control character U+{ord(char):04X} at position {position}; send plain text."
            )
    return spaced


# Tried in this order: "how many square metres" is an area and "how many centimetres" a length, but "how many chairs
# are within 2 metres" is a count.
_UNIT = r"(?P<area>square met(?:er|re)s?|m2|m²)|(?P<centimetres>centimet(?:er|re)s?|cm)|(?P<metres>met(?:er|re)s?)"
_HOW_MANY_UNITS = re.compile(rf"\bhow many (?:{_UNIT})\b")
_COUNT = re.compile(r"\bhow many\b|\bnumber of\b|\bcount the\b")
_IN_UNITS = re.compile(rf"\b(?:{_UNIT})(?!\w)")
_AREA = re.compile(r"\b(?:size|area) of (?:this|the) room\b|\bhow (?:big|large) is (?:this|the) room\b")
_LENGTH = re.compile(
    r"\bhow (?:far|long|tall|high|wide|deep|close)\b|\bwhat(?: is|'s) the (?:distance|height|width|length|depth)\b"
)


def _number_form(text: str) -> AnswerForm:
    lowered = text.lower()
    if match := _HOW_MANY_UNITS.search(lowered):
        return _unit_form(match)
    if _COUNT.search(lowered):
        return AnswerForm.COUNT
    if match := _IN_UNITS.search(lowered):
        return _unit_form(match)
    if _AREA.search(lowered):
        return AnswerForm.SQUARE_METRES
    return AnswerForm.METRES if _LENGTH.search(lowered) else AnswerForm.TEXT


def _unit_form(match: re.Match[str]) -> AnswerForm:
    if match["area"]:
        return AnswerForm.SQUARE_METRES
    return AnswerForm.CENTIMETRES if match["centimetres"] else AnswerForm.METRES
