"""A scene and a model together: from a question to an answer, in the node, in replay and in the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from spatial_mllm_ros.answering.answer import Answer, Status, Timings
from spatial_mllm_ros.answering.context import ContextConfig, VisualContext
from spatial_mllm_ros.answering.context_cache import ContextCache, evidence_of
from spatial_mllm_ros.answering.deadline_policy import Degradation
from spatial_mllm_ros.answering.model import AnswerModel, Generation, ModelOutOfMemoryError
from spatial_mllm_ros.answering.parsing import parse_answer
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.scene.records import EvidenceSet
from spatial_mllm_ros.scene.scene import Scene


@dataclass
class Inquiry:
    """A question that waits for its answer: when it arrived, its deadline, and whether it was cancelled.

    ``fresh`` demands a context of the present evidence set; otherwise a context whose frames differ by at most
    ``ContextConfig.max_changed_fraction`` may answer.
    """

    question: Question
    arrived_ns: int  #: steady clock
    deadline_ns: int | None = None  #: steady clock; None: no limit
    cancelled: Callable[[], bool] = lambda: False
    on_text: Callable[[str], None] | None = None
    fresh: bool = False

    def expired(self) -> bool:
        """True once the deadline has passed."""
        return self.deadline_ns is not None and time.monotonic_ns() >= self.deadline_ns


class SpatialSession:
    """Answers questions about one scene with one model. Not thread-safe: one thread asks, processes and refreshes.

    Args:
        scene: the evidence.
        model: what answers.
        context: when contexts are made; whoever drives the session calls ``refresh`` between questions.
    """

    def __init__(self, scene: Scene, model: AnswerModel, context: ContextConfig | None = None) -> None:
        self.scene = scene
        self.model = model
        self.context_cache = ContextCache(scene, model, context or ContextConfig())

    @property
    def context(self) -> VisualContext | None:
        """The present context; None while nothing of this epoch has been read."""
        return self.context_cache.current

    def seconds_to_refresh(self) -> float | None:
        """Time until ``refresh`` has something to do; None: not before the scene changes."""
        return self.context_cache.seconds_to_refresh()

    def refresh(
        self,
        interrupt: Callable[[], bool] = lambda: False,
        pause_requested: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Begins or continues the next context; True when it has replaced the present one.

        An error of the model is logged, not raised, and the refresh is tried again later.

        Args:
            interrupt: True ends the call within one layer of the model.
            pause_requested: True ends the call at the next point where no work is lost.
        """
        return self.context_cache.refresh(interrupt, pause_requested)

    def ask(self, question: Question, *, deadline_ns: int | None = None) -> Answer:
        """Answers ``question`` from the present evidence set; ``deadline_ns`` is a duration, None for no limit.

        Errors of the model are not raised: the answer's status names them.
        """
        now_ns = time.monotonic_ns()
        deadline = None if deadline_ns is None else now_ns + deadline_ns
        return self.answer(Inquiry(question, now_ns, deadline, fresh=True))

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
        if self.scene.pending and self.scene.snapshot.selection.scale_source is None:
            self.scene.process(max_calls=1)  # the question came before the first frames were placed
        evidence = evidence_of(self.scene)
        selection = evidence.selection
        selection_ns = time.monotonic_ns() - started_ns
        if not evidence.frames:
            sentence = (
                "No camera frame has arrived yet; check that the camera publishes, and that 'image' is remapped to it."
            )
            return Answer(Status.NO_FRAMES, sentence, epoch=selection.epoch)
        # a loaded scene without a new frame has the age of its newest frame
        newest_ns = self.scene.status().newest_stamp_ns or selection.stamps_ns[-1]
        answer = self._generate(inquiry, evidence)
        if evidence.other_sizes:
            left_out = (
                f"{evidence.other_sizes} of {evidence.other_sizes + len(evidence.frames)} frames have another image "
                "size and were left out."
            )
            answer = replace(answer, message=f"{answer.message} {left_out}".strip())
        return replace(
            answer,
            epoch=selection.epoch,
            scale_source=selection.scale_source,
            newest_frame_age_ns=max(0, now_stamp_ns - newest_ns) if now_stamp_ns else 0,
            timings=replace(answer.timings, selection_ns=selection_ns),
        )

    def _generate(self, inquiry: Inquiry, evidence: EvidenceSet) -> Answer:
        epoch = evidence.selection.epoch

        def should_stop() -> bool:
            return inquiry.cancelled() or inquiry.expired() or self.scene.epoch != epoch

        while True:
            try:
                return self._from_context(inquiry, evidence, should_stop)
            except ModelOutOfMemoryError as error:
                context = self.context
                if context is None or not self.context_cache.halve(context):
                    return Answer(Status.OUT_OF_MEMORY, f"The model ran out of memory, even with few frames: {error}")
            except SpatialMllmError as error:
                return Answer(Status.MODEL_ERROR, f"The model could not answer ({error.code}): {error}")

    def _from_context(self, inquiry: Inquiry, evidence: EvidenceSet, should_stop: Callable[[], bool]) -> Answer:
        called_ns = time.monotonic_ns()
        max_changed_fraction = 0.0 if inquiry.fresh else self.context_cache.config.max_changed_fraction
        context = self.context if self.context_cache.suits(evidence, max_changed_fraction) else None
        warm = context is not None
        if context is None:
            context = self.context_cache.make(
                evidence,
                max_changed_fraction=max_changed_fraction,
                available_ns=None if inquiry.deadline_ns is None else inquiry.deadline_ns - called_ns,
                interrupt=should_stop,
            )
        if context is None:
            return replace(
                self._ended(inquiry, evidence.selection.epoch),
                evidence_stamps_ns=evidence.stamps_ns,
                timings=Timings(vision_ns=time.monotonic_ns() - called_ns),
            )
        asked_ns = time.monotonic_ns()
        generation = self.model.generate(inquiry.question, context, should_stop=should_stop, on_text=inquiry.on_text)
        if generation.finished:
            self.context_cache.costs.note_text(time.monotonic_ns() - asked_ns)
        waited_ns = asked_ns - inquiry.arrived_ns
        answer = self._read(inquiry, context.epoch, generation)
        return replace(
            answer,
            evidence_stamps_ns=context.stamps_ns,
            confidence=generation.confidence,
            prompt=generation.prompt,
            context="warm" if warm else "cold",
            context_age_ns=max(0, asked_ns - context.built_ns),
            degradation=_degradation(context, generation) if answer.text else Degradation.NO_TEXT,
            timings=Timings(
                vision_ns=0 if warm else asked_ns - called_ns,
                first_token_ns=waited_ns + generation.first_token_ns if generation.first_token_ns else 0,
            ),
        )

    def _read(self, inquiry: Inquiry, epoch: int, generation: Generation) -> Answer:
        if not generation.finished:
            ended = self._ended(inquiry, epoch)
            return ended if ended.status is Status.TIME_JUMP else replace(ended, text=generation.text)
        parsed = parse_answer(inquiry.question, generation.text)
        form = inquiry.question.form
        unit = form.value if form.is_number else ""
        if parsed.fits or not (form.is_number or inquiry.question.options):
            if not parsed.text:
                return Answer(Status.UNPARSED, "The model ended its answer without any text.")
            return Answer(Status.OK, text=parsed.text, value=parsed.value, unit=unit, choice=parsed.choice)
        wanted = "one of the options" if inquiry.question.options else f"one number{f' in {unit}' if unit else ''}"
        return Answer(
            Status.UNPARSED, f"The question asks for {wanted}, and the model's text is not that.", parsed.text
        )

    def _stopped(self, inquiry: Inquiry) -> Answer | None:
        if inquiry.cancelled():
            return Answer(Status.CANCELLED, "The question was cancelled.")
        return _deadline() if inquiry.expired() else None

    def _ended(self, inquiry: Inquiry, epoch: int) -> Answer:
        """The answer to a question that was stopped: it names the cause."""
        if self.scene.epoch != epoch:
            return Answer(Status.TIME_JUMP, "The clock jumped back while the question was open; ask again.")
        return self._stopped(inquiry) or _deadline()


def _degradation(context: VisualContext, generation: Generation) -> Degradation:
    if generation.truncated or not generation.finished:
        return Degradation.TRUNCATED
    return Degradation.FEWER_FRAMES if context.left_out else Degradation.NONE


def _deadline() -> Answer:
    return Answer(Status.DEADLINE, "The deadline passed before the answer was complete; allow more time.")
