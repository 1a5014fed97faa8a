"""Numbers that people write out, found in text: the reading rule of lmms-eval since July 2026."""

from __future__ import annotations

import re

SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(SMALL)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}

_DIGITS = r"-?(?:\d+(?:\.\d+)?|\.\d+)"
_WORDS = (
    rf"\b(?:(?P<tens>{'|'.join(_TENS)})(?:[\s-]+(?P<unit>{'|'.join(SMALL[1:10])}))?|(?P<small>{'|'.join(SMALL)}))\b"
)
_FIRST = re.compile(rf"(?P<digits>{_DIGITS})|{_WORDS}", re.I)


def first_number(text: str) -> float | None:
    """The first number in ``text``, in digits or as an English word up to ninety-nine; None when there is none.

    A comma ends a number ("1,5" is 1); digits and words count by their place alone.
    """
    match = _FIRST.search(text)
    if match is None:
        return None
    if match["digits"]:
        return float(match["digits"])
    return float(sum(_VALUES[match[name].lower()] for name in ("tens", "unit", "small") if match[name]))
