"""The deadline ladder: what a question gives up, one thing after the other, to be answered in time."""

from __future__ import annotations

from collections import deque
from enum import Enum

_KEPT = 4  # measurements that count


class Rung(str, Enum):
    """What an answer had to give up. The values are those of msg/SpatialAnswer."""

    FULL = "full"  #: nothing: all frames of the evidence set, and the whole text
    FEWER_FRAMES = "fewer_frames"  #: the context was made of fewer frames, for the time (or memory) there was
    TEXT_CUT = "text_cut"  #: the text ends where the time or the token budget did
    NONE = "none"  #: there is no text


class CostEstimate:
    """How long a context of so many frames takes to make, and a text to generate, from what they took last.

    It errs on the slow side: of the last few measurements the slowest counts. Between numbers of frames it scales by
    number towards fewer frames and by its square towards more, as the cost lies between the two.
    """

    def __init__(self) -> None:
        self._contexts: dict[int, deque[int]] = {}
        self._texts: deque[int] = deque(maxlen=_KEPT)

    def note_context(self, frames: int, took_ns: int) -> None:
        """A context of ``frames`` frames was made in ``took_ns``."""
        self._contexts.setdefault(frames, deque(maxlen=_KEPT)).append(took_ns)

    def note_text(self, took_ns: int) -> None:
        """A text was generated in ``took_ns``."""
        self._texts.append(took_ns)

    def context_ns(self, frames: int) -> int:
        """What a context of ``frames`` frames will take; 0 while none has been made."""
        if not self._contexts:
            return 0
        known = min(self._contexts, key=lambda count: (abs(count - frames), count))
        ratio = frames / known
        return round(max(self._contexts[known]) * (ratio if ratio <= 1 else ratio**2))

    def text_ns(self) -> int:
        """What a text will take; 0 while none has been generated."""
        return max(self._texts, default=0)

    def frames_within(self, frames: int, available_ns: int | None) -> int:
        """The most of ``frames`` frames whose context can be made in ``available_ns``, leaving time for a text.

        Fewer than all are an even number, since the encoders merge frames in pairs, and at least two: what becomes of
        them the deadline decides. None stands for no limit.
        """
        if available_ns is None or self.context_ns(frames) <= available_ns - self.text_ns():
            return frames
        smaller = range((frames - 1) // 2 * 2, 2, -2)
        return next((n for n in smaller if self.context_ns(n) <= available_ns - self.text_ns()), min(2, frames))
