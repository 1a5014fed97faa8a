"""Which things a question names, at which tokens, and the role of each name: all auxiliary supervision uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spatial_mllm_ros.models.spatial_mllm.tokenization import ChatTokenizer
from spatial_mllm_ros.rooms.world.catalog import LABELS

NO_NAME = -1  #: label of a token that names nothing
_FROM_THIRD = 3  # who stands at the first thing and faces the second turns to the third


class Mentions:
    """Finds the names of things among tokens."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._labels: dict[tuple[int, ...], int] = {}
        for number, label in enumerate(LABELS):
            for text in (label, f" {label}"):
                self._labels[tuple(tokenizer.encode_text(text))] = number
        self._longest = max(len(ids) for ids in self._labels)

    def of(self, ids: Sequence[int]) -> list[int]:
        """Per token the index in ``LABELS`` of the longest name that ends with the token, or ``NO_NAME``."""
        found = [NO_NAME] * len(ids)
        end = len(ids)
        while end > 0:
            length = next(
                (n for n in range(min(self._longest, end), 0, -1) if tuple(ids[end - n : end]) in self._labels), 0
            )
            if length:
                found[end - 1] = self._labels[tuple(ids[end - length : end])]
            end -= length or 1
        return found


@dataclass(frozen=True)
class QuestionNames:
    """The N names in a question.

    Attributes:
        tokens: number of tokens of the question; its answer begins after them.
        places: int [N], the token of each name.
        labels: int [N], its index in ``LABELS``.
        asked: number of the name that is asked about: the last one before options that name things, else the first.
        option_ends: per option the number of its last name; () if the options do not all name equally many things.
        right: index of the right option.
        answer_from: number of the name that the answer follows from: the last name of the right option; without options
            that name things, the third name of the sentence or its last one; None if the sentence names nothing.
    """

    tokens: int
    places: tuple[int, ...]
    labels: tuple[int, ...]
    asked: int
    option_ends: tuple[int, ...]
    right: int
    answer_from: int | None

    @classmethod
    def of(cls, named: Sequence[int], *, in_sentence: int, options: int = 0, right: int = 0) -> QuestionNames:
        """The names of a question.

        Args:
            named: what ``Mentions.of`` gives for all tokens of the question.
            in_sentence: how many of the names come before the options.
            options: number of options.
            right: index of the right one.
        """
        places = tuple(place for place, label in enumerate(named) if label != NO_NAME)
        in_options = len(places) - in_sentence
        ends: tuple[int, ...] = ()
        if options and in_options and in_options % options == 0:
            each = in_options // options
            ends = tuple(in_sentence + (option + 1) * each - 1 for option in range(options))
        if ends:
            answer_from: int | None = ends[right]
        else:
            answer_from = min(in_sentence, _FROM_THIRD) - 1 if in_sentence else None
        asked = in_sentence - 1 if in_options and in_sentence else 0
        return cls(len(named), places, tuple(named[place] for place in places), asked, ends, right, answer_from)
