"""What the answering room needs from a language model, whichever one it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.identity import ModelIdentity


class ModelOutOfMemoryError(MemoryError):
    """The model's device has not enough memory for this many frames; fewer may fit."""


@dataclass(frozen=True)
class Generation:
    """What a model generated, and what it cost.

    Attributes:
        text: decoded text without special tokens.
        confidence: geometric mean probability of the generated tokens, in [0, 1]; 0 when there are none.
        finished: True when the model ended its answer itself or used up its token budget, False when it was stopped.
        prompt: the user text that was really asked.
        vision_ns: duration of frame preparation, both visual encoders and the connector.
        first_token_ns: from the call to the first generated token; 0 when there is none.
    """

    text: str
    confidence: float
    finished: bool
    prompt: str
    vision_ns: int
    first_token_ns: int


class AnswerModel(Protocol):
    """Answers a question about frames."""

    identity: ModelIdentity

    def generate(
        self,
        question: Question,
        frames: Sequence[Frame],
        *,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Answers ``question`` from ``frames`` (at least one, in stamp order).

        Args:
            question: what is asked.
            frames: the evidence.
            should_stop: asked between stages and after every token; True ends the generation with what there is.
            on_text: given the whole text so far whenever it has grown.

        Raises:
            ModelOutOfMemoryError: the device's memory does not hold this many frames.
            SpatialMllmError: the model cannot answer for another reason.
        """
        ...
