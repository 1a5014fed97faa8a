"""The context cache: which frames its context is made of, when the next one is due, and making it in steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from spatial_mllm_ros.answering.context import ContextConfig, VisualContext, changed_fraction
from spatial_mllm_ros.answering.deadline_policy import CostEstimate
from spatial_mllm_ros.answering.model import AnswerModel, ModelOutOfMemoryError
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.scene.records import EvidenceSet
from spatial_mllm_ros.scene.scene import Scene

_log = logging.getLogger(__name__)
_S = 1_000_000_000


def evidence_of(scene: Scene) -> EvidenceSet:
    """The scene's evidence set; a video has one size, so only frames of the newest frame's size are kept."""
    return scene.snapshot.evidence.of_one_size()


class ContextCache:
    """Holds the present context, and the one being made. Not thread-safe: one thread uses it.

    At most two contexts are alive: the present one, and during a refresh the next one, which replaces it in one
    assignment when it is complete. A refresh that has begun keeps its frames even if the evidence set changes: if it
    began again at every change, it might never end.
    """

    def __init__(self, scene: Scene, model: AnswerModel, config: ContextConfig) -> None:
        self._scene = scene
        self._model = model
        self.config = config
        self.costs = CostEstimate()
        self._current: VisualContext | None = None
        self._target: EvidenceSet | None = None  # of the context being made
        self._spent_ns = 0  # on making it
        self._not_before_ns = 0
        self._frames_that_fit: tuple[int, int] | None = None  # epoch, frames

    @property
    def current(self) -> VisualContext | None:
        """The context of the present epoch; None when there is none."""
        self._forget_ended_epochs()
        return self._current

    @property
    def refreshing(self) -> bool:
        """Whether a context is being made."""
        return self._target is not None

    def suits(self, evidence: EvidenceSet, max_changed_fraction: float) -> bool:
        """Whether the present context may answer about ``evidence``, or about the part of it that fits into memory."""
        current, wanted = self.current, self._fitting(evidence)
        return current is not None and changed_fraction(current.stamps_ns, wanted.stamps_ns) <= max_changed_fraction

    def seconds_to_refresh(self) -> float | None:
        """Time until ``refresh`` has something to do; None: not before the scene changes."""
        current, now_ns = self.current, time.monotonic_ns()
        if not self.config.refresh:
            return None
        waiting_ns = max(0, self._not_before_ns - now_ns)
        if self._target is not None:
            return waiting_ns / _S
        wanted = self._fitting(evidence_of(self._scene))
        if not wanted.frames:
            return None
        if current is not None:
            fraction = changed_fraction(current.stamps_ns, wanted.stamps_ns)
            if fraction == 0:
                return None
            if fraction < self.config.refresh_changed_fraction:
                of_age_ns = current.built_ns + round(self.config.max_age_s * _S)
                waiting_ns = max(waiting_ns, of_age_ns - now_ns)
        return max(0, waiting_ns) / _S

    def refresh(self, interrupt: Callable[[], bool], pause_requested: Callable[[], bool] = lambda: False) -> bool:
        """Begins or continues the next context; True when it has replaced the present one.

        Interrupted or paused (see ``AnswerModel.prepare``), the call returns soon and keeps the work that is done; the
        present context stays. Whether a refresh is due, ``seconds_to_refresh`` tells. A failure is logged, and the
        refresh is tried again after ``max_age_s``.
        """
        self._forget_ended_epochs()
        if self._target is None:
            self._target, self._spent_ns = self._fitting(evidence_of(self._scene)), 0
        target = self._target
        epoch = target.selection.epoch
        if not target.frames:
            self._target = None
            return False
        # A refresh that fails below, for whatever reason, must not be tried again at once.
        self._not_before_ns = time.monotonic_ns() + round(max(self.config.max_age_s, 1.0) * _S)
        try:
            context = self._made(target, lambda: interrupt() or self._scene.epoch != epoch, pause_requested)
        except ModelOutOfMemoryError as error:
            self._target = None
            if len(target.frames) > 2:
                self._halve(target)
                self._not_before_ns = 0
            _log.warning(
                "The model ran out of memory while it read %d frames in advance: %s", len(target.frames), error
            )
            return False
        except SpatialMllmError as error:
            self._target = None
            _log.error("The context could not be refreshed (%s): %s", error.code, error)
            return False
        self._not_before_ns = 0
        if context is None:
            return False
        self._not_before_ns = time.monotonic_ns() + round(self.config.refresh_interval_s * _S)
        return context.epoch == self._scene.epoch

    def make(
        self,
        evidence: EvidenceSet,
        *,
        max_changed_fraction: float,
        available_ns: int | None,
        interrupt: Callable[[], bool],
    ) -> VisualContext | None:
        """Makes a context for a question that cannot use the present one; None when interrupted.

        A refresh that has begun is finished if at most ``max_changed_fraction`` of its frames differ from
        ``evidence``. The present context is released first, because memory may not hold both.

        Args:
            available_ns: how long the question may take; None for no limit. The context is made of fewer frames where
                the cost estimate exceeds this time.

        Raises:
            ModelOutOfMemoryError: even with two frames.
            SpatialMllmError: the model cannot read them.
        """
        self._forget_ended_epochs()
        self._current = None
        under_way = self._target
        if under_way is not None and changed_fraction(under_way.stamps_ns, evidence.stamps_ns) <= max_changed_fraction:
            evidence = under_way
            available_ns = None if available_ns is None else available_ns + self._spent_ns
        while True:
            part = self._fitting(evidence)
            part = part.thinned(self.costs.frames_within(len(part.frames), available_ns))
            if under_way is None or under_way.stamps_ns != part.stamps_ns:
                self._spent_ns = 0
            self._target = under_way = part
            try:
                context = self._made(part, interrupt)
            except ModelOutOfMemoryError:
                self._target = under_way = None
                if len(part.frames) <= 2:
                    raise
                self._halve(part)
                continue
            except SpatialMllmError:
                self._target = None
                raise
            if context is None and (part.left_out or not self.config.refresh):
                self._target = None  # a refresh must not continue it
            return context

    def halve(self, context: VisualContext) -> bool:
        """Releases a context that leaves no memory for a question; False when fewer frames would not help."""
        self._current = self._target = None
        self._not_before_ns = 0
        if len(context.stamps_ns) <= 2:
            return False
        self._frames_that_fit = (context.epoch, len(context.stamps_ns) // 2)
        return True

    def _made(
        self, part: EvidenceSet, interrupt: Callable[[], bool], pause_requested: Callable[[], bool] = lambda: False
    ) -> VisualContext | None:
        started_ns = time.monotonic_ns()
        try:
            context = self._model.prepare(
                part.frames, epoch=part.selection.epoch, interrupt=interrupt, pause_requested=pause_requested
            )
        finally:
            self._spent_ns += time.monotonic_ns() - started_ns
        if context is None:
            return None
        self.costs.note_context(len(part.frames), self._spent_ns)
        self._target = None
        self._current = replace(context, left_out=part.left_out)
        return self._current

    def _forget_ended_epochs(self) -> None:
        epoch = self._scene.epoch
        if self._current is not None and self._current.epoch != epoch:
            self._current, self._not_before_ns = None, 0
        if self._target is not None and self._target.selection.epoch != epoch:
            self._target, self._not_before_ns = None, 0  # it would keep frames alive

    def _fitting(self, evidence: EvidenceSet) -> EvidenceSet:
        """``evidence``, or as many of its frames as fit into memory in this epoch."""
        if self._frames_that_fit is None or self._frames_that_fit[0] != evidence.selection.epoch:
            return evidence
        return evidence.thinned(self._frames_that_fit[1])

    def _halve(self, evidence: EvidenceSet) -> None:
        _log.warning("The model ran out of memory with %d frames; it now gets half of them.", len(evidence.frames))
        self._frames_that_fit = (evidence.selection.epoch, len(evidence.frames) // 2)
