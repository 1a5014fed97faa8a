"""Keeps one context warm: what it should be made of, when it is due, and how it is made a slice at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from spatial_mllm_ros.answering.context import ContextConfig, WarmContext, changed_share
from spatial_mllm_ros.answering.deadline_policy import CostEstimate
from spatial_mllm_ros.answering.model import AnswerModel, ModelOutOfMemoryError
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.scene.records import EvidenceSet as Evidence
from spatial_mllm_ros.scene.scene import Scene

_log = logging.getLogger(__name__)
_S = 1_000_000_000


def evidence_of(scene: Scene) -> Evidence:
    """The scene's evidence set; the frames of the newest one's size where sizes differ, as a video has one size."""
    return scene.snapshot.evidence.of_one_size()


class ContextKeeper:
    """The context there is, and the one being made. Not thread-safe: one thread uses it.

    At most two contexts are alive: the one that answers, and during a refresh the one that will take its place, which
    it does in one assignment when it is whole. A refresh that is under way keeps to the frames it was begun with, even
    when the evidence set changes a little meanwhile: begun anew with every change, it might never end.
    """

    def __init__(self, scene: Scene, model: AnswerModel, config: ContextConfig) -> None:
        self._scene = scene
        self._model = model
        self.config = config
        self.costs = CostEstimate()
        self._current: WarmContext | None = None
        self._target: Evidence | None = None  # of the refresh under way
        self._spent_ns = 0  # on it
        self._not_before_ns = 0
        self._frames_that_fit: tuple[int, int] | None = None  # epoch, frames

    @property
    def current(self) -> WarmContext | None:
        """The context of the present epoch; None while there is none."""
        self._forget_ended_epochs()
        return self._current

    @property
    def refreshing(self) -> bool:
        """Whether a refresh has been begun and not ended."""
        return self._target is not None

    def drop(self) -> None:
        """Forgets the context, and the one being made."""
        self._current = self._target = None
        self._not_before_ns = 0

    def suits(self, evidence: Evidence, usable_share: float) -> bool:
        """Whether the context there is may answer for ``evidence``, or for what memory holds of it."""
        current, wanted = self.current, self._fitting(evidence)
        return current is not None and changed_share(current.stamps_ns, wanted.stamps_ns) <= usable_share

    def seconds_to_refresh(self) -> float | None:
        """In how long ``refresh`` has something to do; None: not before the scene changes."""
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
            share = changed_share(current.stamps_ns, wanted.stamps_ns)
            if share == 0:
                return None
            if share < self.config.refresh_share:
                of_age_ns = current.built_ns + round(self.config.max_age_s * _S)
                waiting_ns = max(waiting_ns, of_age_ns - now_ns)
        return max(0, waiting_ns) / _S

    def refresh(self, should_yield: Callable[[], bool], may_pause: Callable[[], bool] = lambda: False) -> bool:
        """Goes on making the next context, or begins to; True when it has taken the old one's place.

        Asked to yield or pause (see ``AnswerModel.prepare``) it returns soon, keeps what it has done, and leaves the
        old context as it is. It does not look whether a refresh is due: see ``seconds_to_refresh``. A failure is
        logged, and tried again after a while.
        """
        self._forget_ended_epochs()
        if self._target is None:
            self._target, self._spent_ns = self._fitting(evidence_of(self._scene)), 0
        target = self._target
        epoch = target.selection.epoch
        if not target.frames:
            self._target = None
            return False
        # Whatever goes wrong below, known or not, is not tried again at once, over and over.
        self._not_before_ns = time.monotonic_ns() + round(max(self.config.max_age_s, 1.0) * _S)
        try:
            context = self._made(target, lambda: should_yield() or self._scene.epoch != epoch, may_pause)
        except ModelOutOfMemoryError as error:
            self._target = None
            if len(target.frames) > 2:
                self._halve(target)
                self._not_before_ns = 0
            _log.warning("Out of memory while %d frames were read in advance: %s", len(target.frames), error)
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
        evidence: Evidence,
        *,
        usable_share: float,
        available_ns: int | None,
        should_yield: Callable[[], bool],
    ) -> WarmContext | None:
        """A context for a question that cannot use the one there is; None when asked to yield.

        A refresh under way is finished, if what it is made of is near enough. The old context is let go first: it was
        not good enough, and memory may not hold both.

        Args:
            available_ns: how long the question may take; None for no limit. Where the estimate says that all frames
                take longer, it is made of fewer.

        Raises:
            ModelOutOfMemoryError: also with two frames.
            SpatialMllmError: the model cannot read them.
        """
        self._forget_ended_epochs()
        self._current = None
        under_way = self._target
        if under_way is not None and changed_share(under_way.stamps_ns, evidence.stamps_ns) <= usable_share:
            evidence = under_way
            available_ns = None if available_ns is None else available_ns + self._spent_ns
        while True:
            part = self._fitting(evidence)
            part = part.thinned(self.costs.frames_within(len(part.frames), available_ns))
            if under_way is None or under_way.stamps_ns != part.stamps_ns:
                self._spent_ns = 0
            self._target = under_way = part
            try:
                context = self._made(part, should_yield)
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
                self._target = None  # no refresh is to go on with it
            return context

    def halve(self, context: WarmContext) -> bool:
        """Lets go of a context that leaves no memory for a question; False when fewer frames would not help."""
        self.drop()
        if len(context.stamps_ns) <= 2:
            return False
        self._frames_that_fit = (context.epoch, len(context.stamps_ns) // 2)
        return True

    def _made(
        self, part: Evidence, should_yield: Callable[[], bool], may_pause: Callable[[], bool] = lambda: False
    ) -> WarmContext | None:
        started_ns = time.monotonic_ns()
        try:
            context = self._model.prepare(
                part.frames, epoch=part.selection.epoch, should_yield=should_yield, may_pause=may_pause
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
            self._target, self._not_before_ns = None, 0  # it holds frames

    def _fitting(self, evidence: Evidence) -> Evidence:
        """``evidence``, or as many of its frames as memory was found to hold in this epoch."""
        if self._frames_that_fit is None or self._frames_that_fit[0] != evidence.selection.epoch:
            return evidence
        return evidence.thinned(self._frames_that_fit[1])

    def _halve(self, evidence: Evidence) -> None:
        _log.warning("Out of memory with %d frames; from now on half of them.", len(evidence.frames))
        self._frames_that_fit = (evidence.selection.epoch, len(evidence.frames) // 2)
