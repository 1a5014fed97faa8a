"""What the answering room needs from a language model, whichever one it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spatial_mllm_ros.answering.context import WarmContext
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity


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
        first_token_ns: from the call to the first generated token; 0 when there is none.
        token_ids: what was generated, the token that ends an answer included.
        cut: the token budget was used up before the model ended its answer.
    """

    text: str
    confidence: float
    finished: bool
    prompt: str
    first_token_ns: int
    token_ids: tuple[int, ...] = ()
    cut: bool = False


class AnswerModel(Protocol):
    """Answers questions about frames, in two halves: the frames, once, and then each question. One thread at a time."""

    identity: ModelIdentity

    def prepare(
        self,
        frames: Sequence[Frame],
        *,
        epoch: int,
        should_yield: Callable[[], bool],
        may_pause: Callable[[], bool] = lambda: False,
    ) -> WarmContext | None:
        """Reads ``frames`` (at least one, of one size, in stamp order), so that questions about them can be asked.

        The frames alone decide what a context is: made at once or in many calls, with or without anything kept from
        other contexts, it gives the same answers.

        Args:
            frames: the evidence.
            epoch: of the scene; (epoch, stamp) names a frame.
            should_yield: asked often; True ends the call soon, and some work may have to be done again.
            may_pause: asked now and then, where nothing is lost; True ends the call.

        Returns:
            the context; None when asked to yield or pause. Called again with the same frames, it goes on where it was
            left; with others, what had been done is given up.

        Raises:
            ModelOutOfMemoryError: the device's memory does not hold this many frames.
            SpatialMllmError: the model cannot read them for another reason.
        """
        ...

    def generate(
        self,
        question: Question,
        context: WarmContext,
        *,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Answers ``question`` about the frames of ``context``, which is afterwards what it was before.

        Args:
            question: what is asked.
            context: of ``prepare`` of this very model.
            should_stop: asked before the first and after every token; True ends the generation with what there is.
            on_text: given the whole text so far whenever it has grown.

        Raises:
            ModelOutOfMemoryError: the device's memory does not hold question and answer.
            SpatialMllmError: the model cannot answer for another reason.
        """
        ...
