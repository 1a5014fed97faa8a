"""The thread that does the heavy work: questions first, in order; between them frames and the model's context.

A question waits for at most one encoder window, and for at most one layer of a context refresh, which continues after
the answer. Windows and refreshes take turns when there is work for both: after every window a refresh gets as much time
as the window took. So neither can starve the other, and each is at worst half as fast as alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from spatial_mllm_ros.answering.answer import Answer, Status, Timings
from spatial_mllm_ros.answering.session import Inquiry, SpatialSession

_log = logging.getLogger(__name__)
_LEAST_SLICE_NS = 50_000_000  # that a refresh gets while frames wait
_DROPPABLE_TASKS = 4


@dataclass(frozen=True, eq=False)
class _Task:
    work: Callable[[], None]
    refused: Callable[[], None] | None


def unexpected_error(error: Exception) -> str:
    """What a client is told of an error that no code expects; the log has its traceback."""
    return f"Unexpected error ({type(error).__name__}: {error}); please report it with the log."


class SessionWorker:
    """Runs a session in a thread of its own, so that nothing heavy happens in the executor.

    Args:
        session: only this thread uses it.
        queue_size: questions that may wait, not counting the one being answered.
        max_view_age_ns: while the newest frame is older, a question waits for a new one until its deadline.
        now_stamp_ns: gives the present in the clock of the frame stamps.
        on_scene_changed: called in the thread after frames were placed in the scene.
    """

    def __init__(
        self,
        session: SpatialSession,
        *,
        queue_size: int,
        max_view_age_ns: int,
        now_stamp_ns: Callable[[], int],
        on_scene_changed: Callable[[], None],
    ) -> None:
        self._session = session
        self._queue_size = queue_size
        self._max_view_age_ns = max_view_age_ns
        self._now_stamp_ns = now_stamp_ns
        self._on_scene_changed = on_scene_changed
        self._condition = threading.Condition()
        self._questions: deque[tuple[Inquiry, Callable[[Answer], None]]] = deque()
        self._tasks: deque[_Task] = deque()
        self._stopping = False
        self._window_ns = 0  # duration of the last window
        self._refresh_next = False  # the last turn was a window's
        self._thread = threading.Thread(target=self._run, name="spatial-session", daemon=True)
        self._thread.start()

    def submit(self, inquiry: Inquiry, done: Callable[[Answer], None]) -> None:
        """Queues a question; ``done`` is called once with its answer, at once when the queue is full.

        ``done`` runs in the worker's thread, or in the caller's when the answer is BUSY or CANCELLED.
        """
        refusal = None
        with self._condition:
            if self._stopping:
                refusal = Answer(Status.CANCELLED, "The node is shutting down.")
            elif len(self._questions) >= self._queue_size:
                refusal = Answer(Status.BUSY, f"{len(self._questions)} questions are waiting already; ask again later.")
            else:
                self._questions.append((inquiry, done))
                self._condition.notify_all()
        if refusal is not None:
            done(refusal)

    def submit_task(self, task: Callable[[], None], refused: Callable[[], None] | None = None) -> None:
        """Queues work other than a question, which the thread does after the waiting questions.

        Without ``refused``, newer tasks may take the task's place. With ``refused``, either the task is run, or the
        thread has ended before it and ``refused`` is called, in the caller's thread or in that of ``close``.
        """
        with self._condition:
            stopping = self._stopping
            if not stopping:
                droppable = [waiting for waiting in self._tasks if waiting.refused is None]
                if refused is None and len(droppable) >= _DROPPABLE_TASKS:
                    self._tasks.remove(droppable[0])
                self._tasks.append(_Task(task, refused))
                self._condition.notify_all()
        if stopping and refused is not None:
            refused()

    def frame_added(self) -> None:
        """Tells the thread that the scene has a new frame."""
        with self._condition:
            self._condition.notify_all()

    @property
    def stopping(self) -> bool:
        """True once ``close`` has been called; open questions then end as soon as possible."""
        return self._stopping

    def close(self, timeout_s: float = 10.0) -> None:
        """Ends the thread as soon as the present question has noticed; waiting ones are answered CANCELLED."""
        with self._condition:
            self._stopping = True
            waiting = list(self._questions)
            self._questions.clear()
            tasks = list(self._tasks)
            self._tasks.clear()
            self._condition.notify_all()
        for _, done in waiting:
            done(Answer(Status.CANCELLED, "The node is shutting down."))
        for task in tasks:
            if task.refused is not None:
                task.refused()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.error("The session thread did not end within %.0f s; it is left behind.", timeout_s)

    def _run(self) -> None:
        while True:
            refresh_in_s = None if self._questions else self._seconds_to_refresh()
            with self._condition:
                woken = self._condition.wait_for(
                    lambda: self._stopping or self._questions or self._tasks or self._session.scene.pending,
                    refresh_in_s,
                )
                if self._stopping:
                    return
                question = self._questions.popleft() if self._questions else None
                task = self._tasks.popleft() if self._tasks and question is None else None
            frames_wait = bool(self._session.scene.pending)
            refresh_due = refresh_in_s is not None and (refresh_in_s == 0 or not woken)
            if question is not None:
                inquiry, done = question
                answer = self._answer(inquiry)
                self._guarded("An answer was not handed over", lambda: done(answer))  # noqa: B023 (called at once)
            elif task is not None:
                self._guarded("A task failed", task.work)
            elif frames_wait and not (self._refresh_next and refresh_due):
                self._process()
            elif refresh_due:
                self._refresh()

    def _seconds_to_refresh(self) -> float | None:
        try:
            return self._session.seconds_to_refresh()
        except Exception:  # noqa: BLE001 (the thread must outlive any defect; without a refresh it still answers)
            _log.exception("It is not known when the context is due: unexpected error; please report it with the log.")
            return None

    def _refresh(self) -> None:
        self._refresh_next = False
        until_ns = time.monotonic_ns() + max(self._window_ns, _LEAST_SLICE_NS)
        try:
            self._session.refresh(
                interrupt=lambda: self._stopping or bool(self._questions),
                pause_requested=lambda: (
                    bool(self._tasks) or (self._session.scene.pending > 0 and time.monotonic_ns() >= until_ns)
                ),
            )
        except Exception:  # noqa: BLE001 (the thread must outlive any defect; the old context is still there)
            _log.exception("The context was not refreshed: unexpected error; please report it with the log.")

    def _guarded(self, failure: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 (the thread must outlive any defect)
            _log.exception("%s: unexpected error; please report it with the log.", failure)

    def _process(self) -> None:
        started_ns = time.monotonic_ns()
        try:
            changed = self._session.scene.process(max_calls=1)
        except Exception:  # noqa: BLE001 (the thread must outlive any defect; diagnostics shows the growing count)
            _log.exception("Frames were not placed in the scene: unexpected error; please report it with the log.")
            return
        finally:
            self._window_ns, self._refresh_next = time.monotonic_ns() - started_ns, True
        if changed:
            self._guarded("A change of the scene was not told", self._on_scene_changed)

    def _answer(self, inquiry: Inquiry) -> Answer:
        try:
            stale = self._wait_for_fresh_view(inquiry)
            return stale or self._session.answer(inquiry, now_stamp_ns=self._now_stamp_ns())
        except Exception as error:  # noqa: BLE001 (a client waits: it must get an answer whatever happens)
            _log.exception("A question was not answered: unexpected error; please report it with the log.")
            return Answer(Status.MODEL_ERROR, unexpected_error(error))

    def _wait_for_fresh_view(self, inquiry: Inquiry) -> Answer | None:
        scene = self._session.scene

        def age_ns() -> int:
            newest_ns = scene.status().newest_stamp_ns
            return self._now_stamp_ns() - newest_ns if newest_ns else 0

        with self._condition:
            while age_ns() > self._max_view_age_ns:
                if self._stopping or inquiry.cancelled():
                    return Answer(Status.CANCELLED, "The question was cancelled while it waited for a fresh view.")
                remaining_s = 1.0 if inquiry.deadline_ns is None else (inquiry.deadline_ns - time.monotonic_ns()) / 1e9
                if remaining_s <= 0:
                    waited_ns = time.monotonic_ns() - inquiry.arrived_ns
                    return Answer(
                        Status.STALE_VIEW,
                        f"The newest frame is {age_ns() / 1e9:.1f} s old and no new one came; check the camera.",
                        newest_frame_age_ns=age_ns(),
                        epoch=scene.status().epoch,
                        timings=Timings(queued_ns=waited_ns, total_ns=waited_ns),
                    )
                self._condition.wait(min(remaining_s, 0.1))  # a cancellation does not notify
        return None
