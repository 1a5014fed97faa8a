"""VSI-Bench as VLMEvalKit scores it without a judge model: the whole answer is searched for an option or a number.

The first of these signs of an option decides: an <answer> block; a letter before a closing tag; a letter in the last
lines after the thinking; a letter in the last lines of the text; a phrase such as "the answer is B"; a capital letter
that is the only one alone in the text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from spatial_mllm_ros.scoring.scorers.base import QuestionTypeError
from spatial_mllm_ros.scoring.scorers.numbers_in_text import SMALL
from spatial_mllm_ros.scoring.scorers.relative_accuracy import as_float, mra_of_error
from spatial_mllm_ros.scoring.scorers.vsi_bench import CHOICE_TYPES, NUMERIC_TYPES

_TAIL_CHARS = 800
_LAST_LINES = 6
_ZERO_WIDTH = re.compile("[\u200b\u200c\u200d\ufeff]")

_NUMBER_TEXT = r"[-+]?(?:\d*\.\d+|\d+)(?:[eE][-+]?\d+)?"
_NUMBER = re.compile(_NUMBER_TEXT)
_TAGGED_NUMBER = re.compile(rf"<\s*answer\b[^>]*>\s*({_NUMBER_TEXT})(?:[^\d<][^<]*)?<\s*/\s*answer\s*>", re.I | re.S)
_WORD_VALUES = {word: str(value) for value, word in enumerate((*SMALL, "twenty"))}
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_WORD_VALUES)})\b", re.I)

_OPEN, _CLOSE = r"[(\[{（【]?\s*", r"\s*[)\]}）】]?"  # brackets that models put around a letter, also Chinese ones
_TAGGED_LETTER = re.compile(r"<\s*answer\b[^>]*>\s*([A-J]).*?<\s*/\s*answer\s*>", re.I | re.S)
_BEFORE_TAG = tuple(
    re.compile(rf"(?<![A-Za-z]){_OPEN}([A-F]){_CLOSE}\s*</\s*{tag}\s*>", re.I) for tag in ("answer", "think")
)
_THINK_END = re.compile(r"</\s*think\s*>", re.I)
_THINK_START = re.compile(r"<\s*think\s*>", re.I)
_OPTION_LISTED = re.compile(r"^[*_>\-\s]*(?:option|选项)\s+[A-J]\s*[:：]", re.I)
_LETTER_LINE = re.compile(r"\s*[*_`>（）\[\]【】()]*\s*([A-Fa-f])\s*[*_`（）\[\]【】()]*\s*")
_LABELLED_LINE = re.compile(r"\s*([A-F])\s*[.．:：)\]】、-]\s+", re.I)
_LETTER_IN_LINE = re.compile(
    r"(?<![A-Za-z])[*_`（\[{(]*\s*([A-F])\s*[*_`）\]})]*(?=$|[\s.,:;!?)\]】》」』，。；、：）])"
)
_PHRASE = re.compile(
    rf"(?:final\s*answer|the\s*answer\s*is|answer(?:\s*is)?|correct\s*answer|答案|最终答案|结论|所以|因此|我选(?:择)?|选择|选)"
    rf"\s*[:：>＝=]?\s*{_OPEN}([A-F]){_CLOSE}(?:\b|[.)、。])",
    re.I,
)
_LETTER_ALONE = re.compile(rf"(?<![A-Za-z]){_OPEN}([A-F]){_CLOSE}(?![A-Za-z])")


def score_as_vlmevalkit(question_type: str, prediction: str, truths: tuple[str, ...]) -> float:
    """Exact match of the option found, or relative accuracy of the number found; 0 where nothing is found.

    Raises:
        UnscorableError: the type is unknown.
    """
    if question_type in CHOICE_TYPES:
        return float(option_in(prediction) == option_in(truths[0].strip()))
    if question_type not in NUMERIC_TYPES:
        raise QuestionTypeError(question_type, (*NUMERIC_TYPES, *CHOICE_TYPES))
    said, truth = number_in(prediction), as_float(truths[0])
    if said is None or truth is None or truth != truth:
        return 0.0
    return mra_of_error(abs(said - truth) / (abs(truth) or 1.0))


def option_in(text: str) -> str | None:
    """The letter of the option that the text names, upper case; None where no sign is found."""
    text = _ZERO_WIDTH.sub("", text.strip())
    tail = text[-_TAIL_CHARS:]
    for pattern, where in ((_TAGGED_LETTER, text), *((pattern, tail) for pattern in _BEFORE_TAG)):
        if match := pattern.search(where):
            return match[1].upper()
    for part in (_after_thinking(text), tail):
        if letter := _letter_of_last_lines(part.splitlines()[-_LAST_LINES:]):
            return letter
    if match := _PHRASE.search(text):
        return match[1].upper()
    rest = "\n".join(line for line in text.splitlines() if not _OPTION_LISTED.search(line))
    return _only(_LETTER_ALONE.findall(rest))


def number_in(text: str) -> float | None:
    """The number in an <answer> block, else the last one after the thinking, else the last one; None without any.

    Words from zero to twenty count as digits, also inside "twenty-one". Of a list in brackets the first item counts.
    """
    stripped = text.strip()
    if stripped.startswith("[") and stripped.endswith("]"):
        try:
            items = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
        if isinstance(items, list) and items:
            text = str(items[0])
    text = _ZERO_WIDTH.sub("", text.strip())
    text = _NUMBER_WORD.sub(lambda match: _WORD_VALUES[match[0].lower()], text)
    if match := _TAGGED_NUMBER.search(text):
        return float(match[1])
    for part in (_after_thinking(text), text):
        if numbers := _NUMBER.findall(part):
            return float(numbers[-1])
    return None


def _after_thinking(text: str) -> str:
    for tag in (_THINK_END, _THINK_START):
        ends = [match.end() for match in tag.finditer(text)]
        if ends:
            return text[ends[-1] :].strip()
    return text


def _letter_of_last_lines(lines: Iterable[str]) -> str | None:
    for line in reversed([line.strip() for line in lines if line.strip()]):
        if _OPTION_LISTED.search(line):
            continue
        if match := _LETTER_LINE.fullmatch(line) or _LABELLED_LINE.match(line):
            return match[1].upper()
        if letter := _only(_LETTER_IN_LINE.findall(line)):
            return letter
    return None


def _only(letters: list[str]) -> str | None:
    return letters[0].upper() if len(set(letters)) == 1 else None
