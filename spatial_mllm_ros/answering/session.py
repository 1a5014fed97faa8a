"""A scene and a model together: the one way from a question to an answer, for the node and for replay alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from spatial_mllm_ros.answering.answer import Answer, Status, Timings
from spatial_mllm_ros.answering.context import ContextConfig, WarmContext
from spatial_mllm_ros.answering.context_cache import ContextKeeper, Evidence, evidence_of
from spatial_mllm_ros.answering.deadline_policy import Rung
from spatial_mllm_ros.answering.model import AnswerModel, Generation, ModelOutOfMemoryError
from spatial_mllm_ros.answering.parsing import parse_answer
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.scene.scene import Scene


@dataclass
class Inquiry:
    """One question on its way: when it arrived, until when it may take, and whether it is still wanted.

    ``fresh`` asks for the very evidence set of the moment; otherwise a context that is near enough to it may answer.
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
        context: how the model's context is kept warm; whoever drives the session calls ``refresh`` between questions.
    """

    def __init__(self, scene: Scene, model: AnswerModel, context: ContextConfig | None = None) -> None:
        self.scene = scene
        self.model = model
        self.keeper = ContextKeeper(scene, model, context or ContextConfig())

    @property
    def context(self) -> WarmContext | None:
        """What a question would find; None while nothing of this epoch has been read."""
        return self.keeper.current

    def seconds_to_refresh(self) -> float | None:
        """In how long there is something to refresh; None: not before the scene changes."""
        return self.keeper.seconds_to_refresh()

    def refresh(
        self,
        should_yield: Callable[[], bool] = lambda: False,
        may_pause: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Makes the next context, in as many calls as it is interrupted; True when it has taken the old one's place.

        Never raises for what a model can do wrong: it is logged, and tried again after a while.

        Args:
            should_yield: True ends the call within one layer of the model.
            may_pause: True ends it at the next point where nothing is lost.
        """
        return self.keeper.refresh(should_yield, may_pause)

    def drop_context(self) -> None:
        """Forgets what was read in advance, as after another scene was loaded."""
        self.keeper.drop()

    def ask(self, question: Question, *, deadline_ns: int | None = None) -> Answer:
        """Answers ``question`` from the evidence set of this moment; ``deadline_ns`` is a duration, None for no limit.

        Never raises for what a question, a model or a scene can do wrong: the status says it.
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
            self.scene.process(max_calls=1)  # nothing has been placed yet, and the question is here already
        evidence = evidence_of(self.scene)
        selection = evidence.selection
        selection_ns = time.monotonic_ns() - started_ns
        if not evidence.frames:
            sentence = (
                "No camera frame has arrived yet; check that the camera publishes, and that 'image' is remapped to it."
            )
            return Answer(Status.NO_FRAMES, sentence, epoch=selection.epoch)
        # a scene that was loaded, and no frame since: its own age counts
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

    def _generate(self, inquiry: Inquiry, evidence: Evidence) -> Answer:
        epoch = evidence.selection.epoch

        def should_stop() -> bool:
            return inquiry.cancelled() or inquiry.expired() or self.scene.epoch != epoch

        while True:
            try:
                return self._from_context(inquiry, evidence, should_stop)
            except ModelOutOfMemoryError as error:
                context = self.context
                if context is None or not self.keeper.halve(context):
                    return Answer(Status.OUT_OF_MEMORY, f"The model ran out of memory, also with few frames: {error}")
            except SpatialMllmError as error:
                return Answer(Status.MODEL_ERROR, f"The model could not answer ({error.code}): {error}")

    def _from_context(self, inquiry: Inquiry, evidence: Evidence, should_stop: Callable[[], bool]) -> Answer:
        called_ns = time.monotonic_ns()
        usable_share = 0.0 if inquiry.fresh else self.keeper.config.usable_share
        context = self.context if self.keeper.suits(evidence, usable_share) else None
        warm = context is not None
        if context is None:
            context = self.keeper.make(
                evidence,
                usable_share=usable_share,
                available_ns=None if inquiry.deadline_ns is None else inquiry.deadline_ns - called_ns,
                should_yield=should_stop,
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
            self.keeper.costs.note_text(time.monotonic_ns() - asked_ns)
        waited_ns = asked_ns - inquiry.arrived_ns
        answer = self._read(inquiry, context.epoch, generation)
        return replace(
            answer,
            evidence_stamps_ns=context.stamps_ns,
            confidence=generation.confidence,
            prompt=generation.prompt,
            context="warm" if warm else "cold",
            context_age_ns=max(0, asked_ns - context.built_ns),
            rung=_rung(context, generation) if answer.text else Rung.NONE,
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

    def _ended(self, inquiry: Inquiry, epoch: int) -> Answer:
        """Why a question that was asked to stop did."""
        if self.scene.epoch != epoch:
            return Answer(Status.TIME_JUMP, "The clock jumped back while the question was open; ask again.")
        return self._stopped(inquiry) or _deadline()


def _rung(context: WarmContext, generation: Generation) -> Rung:
    if generation.cut or not generation.finished:
        return Rung.TEXT_CUT
    return Rung.FEWER_FRAMES if context.left_out else Rung.FULL


def _deadline() -> Answer:
    return Answer(Status.DEADLINE, "The deadline passed before the answer was complete; allow more time.")
