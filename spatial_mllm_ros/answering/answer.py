"""The answer object: what was said, on which evidence, how sure, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from spatial_mllm_ros.answering.deadline_policy import Rung
from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity


class Status(IntEnum):
    """How a question ended. The numbers are those of msg/SpatialAnswer."""

    OK = 0
    INVALID_QUESTION = 1  #: empty, too long, control characters, malformed options
    NO_FRAMES = 2  #: nothing has been seen yet in this epoch
    STALE_VIEW = 3  #: the newest frame is older than allowed and no new one came within the deadline
    BUSY = 4  #: the queue of questions is full
    DEADLINE = 5  #: time ran out; the text is what there was by then, possibly empty
    CANCELLED = 6  #: the client cancelled, or the node is shutting down
    TIME_JUMP = 7  #: the clock jumped back while the question was open
    UNPARSED = 8  #: the model answered, but not in the form the question asks for; the text is there
    OUT_OF_MEMORY = 9  #: the model ran out of memory, also with fewer frames
    MODEL_ERROR = 10  #: the model failed; the message says how
    NOT_ACTIVE = 11  #: the node is not in its active state


@dataclass(frozen=True)
class Timings:
    """Where the time of an answer went, steady clock, nanoseconds."""

    queued_ns: int = 0  #: from arrival to the start of work
    selection_ns: int = 0  #: evidence set brought up to date
    vision_ns: int = 0  #: a context made for this question: both visual encoders, connector, prefill; 0 when warm
    first_token_ns: int = 0  #: from arrival to the first generated token
    total_ns: int = 0  #: from arrival to the answer


@dataclass(frozen=True)
class Answer:
    """One answer.

    ``value`` is None unless the question asks for a number and the text holds one; ``unit`` is then one of "m", "cm",
    "m^2", "" (a count). ``choice`` is the index of the chosen option of a choice question, else None. ``confidence``
    is the geometric mean probability of the generated tokens, in [0, 1]; it is the model's own and not calibrated.
    ``scale_source`` is None where no geometry was used.

    ``context`` is "warm" when the visual context was there already (``context_age_ns`` since it was made), "cold" when
    it was made for this question, "" when none was used. ``rung`` says what the answer had to give up for its deadline.
    """

    status: Status
    message: str = ""  #: one sentence; the remedy when status is not OK
    text: str = ""
    value: float | None = None
    unit: str = ""
    choice: int | None = None
    confidence: float = 0.0
    method: str = "llm"
    scale_source: ScaleSource | None = None
    evidence_stamps_ns: tuple[int, ...] = ()
    epoch: int = 0
    newest_frame_age_ns: int = 0
    context: str = ""
    context_age_ns: int = 0
    rung: Rung = Rung.NONE
    model: ModelIdentity | None = None
    prompt: str = ""
    timings: Timings = field(default_factory=Timings)
