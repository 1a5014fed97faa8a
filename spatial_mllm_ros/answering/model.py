"""The interface of the language models that answer questions about frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spatial_mllm_ros.answering.context import VisualContext
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity


class ModelOutOfMemoryError(MemoryError):
    """The model's device has not enough memory for this many frames; fewer may fit."""

    code = "OUT_OF_MEMORY"


@dataclass(frozen=True)
class Generation:
    """The text that a model generated, and how long it took.

    Attributes:
        text: decoded text without special tokens.
        confidence: geometric mean probability of the generated tokens, in [0, 1]; 0 when there are none.
        finished: True when the model ended its answer or reached the token limit, False when it was stopped.
        prompt: the user's text as the model was given it.
        first_token_ns: from the call to the first generated token; 0 when there is none.
        token_ids: the generated tokens, the one that ends the answer included.
        truncated: the token limit was reached before the model ended its answer.
    """

    text: str
    confidence: float
    finished: bool
    prompt: str
    first_token_ns: int
    token_ids: tuple[int, ...] = ()
    truncated: bool = False


class AnswerModel(Protocol):
    """Answers questions in two steps: it reads the frames once, and then each question. One thread at a time."""

    identity: ModelIdentity

    def prepare(
        self,
        frames: Sequence[Frame],
        *,
        epoch: int,
        interrupt: Callable[[], bool],
        pause_requested: Callable[[], bool] = lambda: False,
    ) -> VisualContext | None:
        """Reads ``frames`` (at least one, of one size, in stamp order), so that questions about them can be asked.

        The context depends on the frames alone: made in one call or in many, with or without tokens kept from earlier
        contexts, it gives the same answers.

        Args:
            frames: the evidence.
            epoch: of the scene; (epoch, stamp) names a frame.
            interrupt: called often; True ends the call soon, and some work may have to be done again.
            pause_requested: called where no work would be lost; True ends the call.

        Returns:
            the context; None when the call was interrupted or paused. A further call with the same frames continues
            the work; a call with other frames discards it.

        Raises:
            ModelOutOfMemoryError: the device's memory does not hold this many frames.
            SpatialMllmError: the model cannot read them for another reason.
        """
        ...

    def generate(
        self,
        question: Question,
        context: VisualContext,
        *,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Answers ``question`` about the frames of ``context``, which stays as it is.

        Args:
            question: worded by a person or a robot; the model puts it in the wording that it was trained with.
            context: made by this model.
            should_stop: called before the first and after every token; True ends the generation with the text so far.
            on_text: called with the whole text so far whenever it has grown.

        Raises:
            ModelOutOfMemoryError: the device's memory does not hold question and answer.
            SpatialMllmError: the model cannot answer for another reason.
        """
        ...

    def generate_all(self, prompts: Sequence[str], context: VisualContext) -> list[Generation]:
        """Answers several prompts about the frames of ``context`` together, each independently of the others.

        Args:
            prompts: the user's text of each, as the model is to be given it.
            context: made by this model.

        Raises:
            ModelOutOfMemoryError: the device's memory does not hold one prompt and its answer.
            SpatialMllmError: a prompt cannot be used.
        """
        ...


def read_frames(model: AnswerModel, frames: Sequence[Frame], *, epoch: int) -> VisualContext:
    """``AnswerModel.prepare`` in one call that nothing interrupts.

    Raises:
        ModelOutOfMemoryError, SpatialMllmError: see ``AnswerModel.prepare``.
    """
    context = None
    while context is None:
        context = model.prepare(frames, epoch=epoch, interrupt=lambda: False)
    return context
