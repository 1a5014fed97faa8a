"""From a question to the user's text of the prompt, in the wording that the models were trained with.

The models answer other wordings than those of their training templates (VSI-Bench; arXiv 2412.14171) worse. "How far is
the chair from the door?" therefore becomes "Measuring from the closest point of each object, what is the distance
between the chair and the door (in meters)?". A question is reworded only if its meaning stays the same. The answer
states the prompt that the model was given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.prompts import user_text

_THING = r"(?:the |a |an )?(?P<{name}>[\w][\w' -]*?)"
_END = r"(?: in (?:this|the) (?:room|scene))?\s*\??$"

_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        # Without a verb only one or two words can be a thing: "How many coffee tables?"
        re.compile(
            r"^how many (?:(?P<a>[\w' -]+?) are (?:there|here|in (?:this|the) (?:room|scene))"
            r"|(?P<b>[\w'-]+(?: [\w'-]+)?))" + _END,
            re.I,
        ),
        "How many {a} are in this room?",
    ),
    (
        re.compile(
            r"^(?:how far (?:away )?is "
            + _THING.format(name="a")
            + r" (?:away )?from "
            + _THING.format(name="b")
            + r"|(?:what is|what's) the distance (?:between|from) "
            + _THING.format(name="c")
            + r" (?:and|to) "
            + _THING.format(name="d")
            + r")"
            + _END,
            re.I,
        ),
        "Measuring from the closest point of each object, what is the distance between the {a} and the {b} "
        "(in meters)?",
    ),
    (
        re.compile(r"^(?:how (?:big|large) is|what is the (?:size|area) of) (?:this|the) room\s*\??$", re.I),
        "What is the size of this room (in square meters)? If multiple rooms are shown, estimate the size of the "
        "combined space.",
    ),
)
# Line breaks inside a question count as spaces; in these forms the second sentence was trained as a line of its own.
_LINE_BREAKS = re.compile(r"[\t\r\n]+")
_SECOND_LINES = re.compile(
    r"(?<=\?) (?=An object is to my back if I would have to turn |The directions refer to the quadrants of )"
)


def checkpoint_prompt(text: str, options: Sequence[str], fusion: Fusion, *, numeric: bool) -> str:
    """The user's text for a question, as a checkpoint of ``fusion`` was trained: for the node and for every score.

    Args:
        options: choices without their letters, or none.
        numeric: the question asks for a number.

    Raises:
        QuestionError: more options than letters.
    """
    return user_text(benchmark_wording(text), options, fusion, numeric=numeric)


def benchmark_wording(text: str) -> str:
    """The question in the wording of its VSI-Bench form; without one, only its line breaks become spaces."""
    text = _LINE_BREAKS.sub(" ", text).strip()
    for pattern, form in _FORMS:
        match = pattern.match(text)
        if match:
            groups = [group for group in match.groups() if group]
            return form.format(**dict(zip("ab", groups, strict=False)))
    return _SECOND_LINES.sub("\n", text)
