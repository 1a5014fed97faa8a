"""The deadline policy: which frames and how much text an answer gives up so that it is there in time."""

from __future__ import annotations

from collections import deque
from enum import Enum

_KEPT = 4  # measurements that count


class Degradation(str, Enum):
    """What an answer lacks. The values are those of msg/SpatialAnswer; the worst one that applies is given."""

    NONE = "none"  #: nothing: the context holds all frames of the evidence set, and the text is complete
    FEWER_FRAMES = "fewer_frames"  #: time or memory did not allow all frames of the evidence set
    TRUNCATED = "truncated"  #: the text ends at the deadline or at the token limit
    NO_TEXT = "no_text"  #: there is no text


class CostEstimate:
    """Predicts how long a context of some frames takes to make, and a text to generate, from recent measurements.

    The estimate errs on the slow side: the slowest of the last few measurements counts. From one number of frames to
    another, it scales linearly towards fewer frames and quadratically towards more, because the cost grows faster than
    linearly and slower than quadratically.
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
        """Expected duration of making a context of ``frames`` frames; 0 while none has been made."""
        if not self._contexts:
            return 0
        known = min(self._contexts, key=lambda count: (abs(count - frames), count))
        ratio = frames / known
        return round(max(self._contexts[known]) * (ratio if ratio <= 1 else ratio**2))

    def text_ns(self) -> int:
        """Expected duration of generating a text; 0 while none has been generated."""
        return max(self._texts, default=0)

    def frames_within(self, frames: int, available_ns: int | None) -> int:
        """The most of ``frames`` frames whose context can be made in ``available_ns``, leaving time for a text.

        A number below ``frames`` is even, because the encoders merge frames in pairs, and at least two. Two frames are
        tried even if they are expected to take too long. None stands for no limit.
        """
        if available_ns is None or self.context_ns(frames) <= available_ns - self.text_ns():
            return frames
        smaller = range((frames - 1) // 2 * 2, 2, -2)
        return next((n for n in smaller if self.context_ns(n) <= available_ns - self.text_ns()), min(2, frames))
