"""A scene and a model together: the one way from a question to an answer, for the node and for replay alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from spatial_mllm_ros.answering.answer import Answer, Status, Timings
from spatial_mllm_ros.answering.model import AnswerModel, Generation, ModelOutOfMemoryError
from spatial_mllm_ros.answering.parsing import parse_answer
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.records import Selection
from spatial_mllm_ros.scene.scene import Scene

_log = logging.getLogger(__name__)


@dataclass
class Inquiry:
    """One question on its way: when it arrived, until when it may take, and whether it is still wanted."""

    question: Question
    arrived_ns: int  #: steady clock
    deadline_ns: int | None = None  #: steady clock; None: no limit
    cancelled: Callable[[], bool] = lambda: False
    on_text: Callable[[str], None] | None = None

    def expired(self) -> bool:
        """True once the deadline has passed."""
        return self.deadline_ns is not None and time.monotonic_ns() >= self.deadline_ns


class SpatialSession:
    """Answers questions about one scene with one model. Not thread-safe: one thread asks and processes."""

    def __init__(self, scene: Scene, model: AnswerModel) -> None:
        self.scene = scene
        self.model = model

    def ask(self, question: Question, *, deadline_ns: int | None = None) -> Answer:
        """Answers ``question`` from the current evidence set; ``deadline_ns`` is a duration, None for no limit.

        Never raises for what a question, a model or a scene can do wrong: the status says it.
        """
        now_ns = time.monotonic_ns()
        return self.answer(Inquiry(question, now_ns, None if deadline_ns is None else now_ns + deadline_ns))

    def answer(self, inquiry: Inquiry, *, now_stamp_ns: int | None = None) -> Answer:
        """Answers ``inquiry``; see ``ask``. ``now_stamp_ns`` is the present in the clock of the frame stamps.

        Without ``now_stamp_ns`` (a recording) the newest frame is the present.
        """
        started_ns = time.monotonic_ns()
        answer = self._answer(inquiry, now_stamp_ns)
        timings = replace(
            answer.timings,
            queued_ns=started_ns - inquiry.arrived_ns,
            total_ns=time.monotonic_ns() - inquiry.arrived_ns,
        )
        return replace(answer, timings=timings, model=self.model.identity)

    def _answer(self, inquiry: Inquiry, now_stamp_ns: int | None) -> Answer:
        if stopped := self._stopped(inquiry):
            return stopped
        started_ns = time.monotonic_ns()
        if self.scene.pending and self.scene.select().scale_source is None:
            self.scene.process(max_calls=1)  # nothing has been placed yet, and the question is here already
        selection, frames = self.scene.evidence()
        selection_ns = time.monotonic_ns() - started_ns
        if not frames:
            sentence = (
                "No camera frame has arrived yet; check that the camera publishes, and that 'image' is remapped to it."
            )
            return Answer(Status.NO_FRAMES, sentence, epoch=selection.epoch)
        # a scene that was loaded, and no frame since: its own age counts
        newest_ns = self.scene.status().newest_stamp_ns or selection.stamps_ns[-1]
        # A camera that knows its pose may change its image size within a scene; a video for the model has one size.
        alike = [frame for frame in frames if frame.rgb.shape == frames[-1].rgb.shape]
        answer = self._generate(inquiry, selection, alike)
        if len(alike) < len(frames):
            left_out = f"{len(frames) - len(alike)} of {len(frames)} frames have another image size and were left out."
            answer = replace(answer, message=f"{answer.message} {left_out}".strip())
        return replace(
            answer,
            epoch=selection.epoch,
            scale_source=selection.scale_source,
            newest_frame_age_ns=max(0, now_stamp_ns - newest_ns) if now_stamp_ns else 0,
            timings=replace(answer.timings, selection_ns=selection_ns),
        )

    def _generate(self, inquiry: Inquiry, selection: Selection, frames: list[Frame]) -> Answer:
        def should_stop() -> bool:
            return inquiry.cancelled() or inquiry.expired() or self._epoch_ended(selection)

        while True:
            called_ns = time.monotonic_ns()
            try:
                generation = self.model.generate(
                    inquiry.question, frames, should_stop=should_stop, on_text=inquiry.on_text
                )
            except ModelOutOfMemoryError as error:
                if len(frames) <= 2:
                    return Answer(
                        Status.OUT_OF_MEMORY, f"The model ran out of memory with {len(frames)} frames: {error}"
                    )
                _log.warning("Out of memory with %d frames; trying again with half of them.", len(frames))
                frames = frames[::2]
                continue
            except SpatialMllmError as error:
                return Answer(Status.MODEL_ERROR, f"The model could not answer ({error.code}): {error}")
            break
        answer = self._read(inquiry, selection, generation)
        waited_ns = called_ns - inquiry.arrived_ns
        first_token_ns = waited_ns + generation.first_token_ns if generation.first_token_ns else 0
        return replace(
            answer,
            evidence_stamps_ns=tuple(frame.stamp_ns for frame in frames),
            confidence=generation.confidence,
            prompt=generation.prompt,
            timings=Timings(vision_ns=generation.vision_ns, first_token_ns=first_token_ns),
        )

    def _read(self, inquiry: Inquiry, selection: Selection, generation: Generation) -> Answer:
        if not generation.finished:
            if self._epoch_ended(selection):
                return Answer(Status.TIME_JUMP, "The clock jumped back while the question was open; ask again.")
            stopped = self._stopped(inquiry)
            return replace(stopped or _deadline(), text=generation.text)
        parsed = parse_answer(inquiry.question, generation.text)
        form = inquiry.question.form
        unit = form.value if form.is_number else ""
        if parsed.fits or not (form.is_number or inquiry.question.options):
            if not parsed.text:
                return Answer(Status.UNPARSED, "The model ended its answer without saying anything.")
            return Answer(Status.OK, text=parsed.text, value=parsed.value, unit=unit, choice=parsed.choice)
        wanted = "one of the options" if inquiry.question.options else f"one number{f' in {unit}' if unit else ''}"
        return Answer(
            Status.UNPARSED, f"The question asks for {wanted}, and the model's text is not that.", parsed.text
        )

    def _stopped(self, inquiry: Inquiry) -> Answer | None:
        if inquiry.cancelled():
            return Answer(Status.CANCELLED, "The question was cancelled.")
        return _deadline() if inquiry.expired() else None

    def _epoch_ended(self, selection: Selection) -> bool:
        return self.scene.status().epoch != selection.epoch


def _deadline() -> Answer:
    return Answer(Status.DEADLINE, "The deadline passed before the answer was complete; allow more time.")
