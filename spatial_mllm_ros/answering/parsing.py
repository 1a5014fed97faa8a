"""From generated text to the number or the option that it names. A grammar reads it; no text is ever evaluated."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spatial_mllm_ros.answering.question import AnswerForm, Question

_ANSWER_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.S | re.I)
_AREA_UNIT = r"m²|m\^2|m2|square met(?:er|re)s?|sq\.? ?m"
_LENGTH_UNIT = r"mm|cm|m|millimet(?:er|re)s?|centimet(?:er|re)s?|met(?:er|re)s?"
_NUMBER = re.compile(
    rf"(?<![\w.,])(?P<number>-?\d+(?:\.\d+)?)(?![\d]|[.,]\d)\s*(?:(?P<unit>{_AREA_UNIT}|{_LENGTH_UNIT})(?!\w))?", re.I
)
_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBER_WORD = re.compile(r"\b(" + "|".join(_WORDS) + r")\b", re.I)
_LETTER = re.compile(r"^\(?([A-Z])(?:[).:]|\b)")

_METRES_PER_UNIT = {"mm": 0.001, "cm": 0.01, "m": 1.0}


@dataclass(frozen=True)
class ParsedAnswer:
    """What generated text says in the form that the question asks for.

    Attributes:
        text: the option's text where ``choice`` names one, else the answer inside the generated text.
        value: the number; None where the question asks for none or the text holds none.
        choice: index of the option; None where the question has no options or the text names none.
    """

    text: str
    value: float | None = None
    choice: int | None = None

    @property
    def fits(self) -> bool:
        """True when the text holds an answer of the form that the question asks for."""
        return self.value is not None or self.choice is not None


def answer_text(generated: str) -> str:
    """The answer inside generated text: its last <answer> block if it has one, with white space collapsed."""
    blocks = _ANSWER_BLOCK.findall(generated)
    return " ".join((blocks[-1] if blocks else generated).split())


def parse_answer(question: Question, generated: str) -> ParsedAnswer:
    """Reads generated text in the form that ``question`` asks for.

    A number must be the only one in the text (digits, or a word up to twenty for counts), otherwise it is not clear
    which one is the answer. A unit after the number is converted to the unit of the question; an incompatible unit does
    not fit. A choice is a leading letter of an existing option, or the text of exactly one option.
    """
    text = answer_text(generated)
    form = question.form
    if form is AnswerForm.CHOICE:
        choice = _choice(question, text)
        return ParsedAnswer(text if choice is None else question.options[choice], choice=choice)
    if form.is_number:
        return ParsedAnswer(text, value=_number(form, text))
    return ParsedAnswer(text)


def _choice(question: Question, text: str) -> int | None:
    letter = _LETTER.match(text)
    if letter and (index := ord(letter.group(1)) - ord("A")) < len(question.options):
        return index
    named = [i for i, option in enumerate(question.options) if option.lower() == text.rstrip(".").lower()]
    return named[0] if len(named) == 1 else None


def _number(form: AnswerForm, text: str) -> float | None:
    found = list(_NUMBER.finditer(text))
    if len(found) == 1:
        return _in_unit_of(form, float(found[0]["number"]), _unit_symbol(found[0]["unit"]))
    words = _NUMBER_WORD.findall(text)
    if not found and len(words) == 1 and form is AnswerForm.COUNT:
        return float(_WORDS.index(words[0].lower()))
    return None


def _unit_symbol(unit: str | None) -> str:
    if unit is None:
        return ""
    lowered = unit.lower()
    if lowered.startswith(("square", "sq")) or lowered in ("m²", "m^2", "m2"):
        return "m^2"
    for symbol, name in (("mm", "millim"), ("cm", "centim")):
        if lowered == symbol or lowered.startswith(name):
            return symbol
    return "m"


def _in_unit_of(form: AnswerForm, number: float, unit: str) -> float | None:
    if number < 0 or (form is AnswerForm.COUNT and not number.is_integer()):
        return None  # no count, length or area is negative, and things are counted whole
    if unit == "" or unit == form.value:
        return number
    if form in (AnswerForm.METRES, AnswerForm.CENTIMETRES) and unit in _METRES_PER_UNIT:
        return number * _METRES_PER_UNIT[unit] / _METRES_PER_UNIT[form.value]
    return None
