"""Plain questions in the wording that the models were trained on (VSI-Bench forms; arXiv 2412.14171).

Wording other than that of the training templates is answered worse, so "How far is the chair from the door?" is
asked as "Measuring from the closest point of each object, what is the distance between the chair and the door (in
meters)?". Only questions whose meaning stays the same are reworded; every other one is passed on as it is. The
prompt that was really asked is part of the answer.
"""

from __future__ import annotations

import re

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
# A question's line breaks are spaces by the time it is asked; in these forms the second sentence is a line of its own.
_SECOND_LINES = re.compile(
    r"(?<=\?) (?=An object is to my back if I would have to turn |The directions refer to the quadrants of )"
)


def benchmark_wording(text: str) -> str:
    """The question in the wording of its VSI-Bench form, or unchanged where it has none."""
    for pattern, form in _FORMS:
        match = pattern.match(text.strip())
        if match:
            groups = [group for group in match.groups() if group]
            return form.format(**dict(zip("ab", groups, strict=False)))
    return _SECOND_LINES.sub("\n", text)
