"""How the node runs: its executor, its signals, its log, and the order of its end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.impl.rcutils_logger import RcutilsLogger

_T = TypeVar("_T")
_LAST_QUESTIONS_S = 0.2  # at the end, for questions that had arrived before the signal and were not taken yet
_LAST_ANSWERS_S = 10.0  # at the end, at most, for the answers to questions that were still open
_DELIVERY_S = 1.0  # after these answers, for the middleware to deliver them


class StoppableNode(Protocol):
    """An rclpy node that can end its work and says when nothing is left to answer."""

    @property
    def busy(self) -> bool:
        """A question or a request has not been answered yet."""
        ...

    def close(self) -> None:
        """Ends the work; open questions are answered soon."""
        ...

    def get_logger(self) -> RcutilsLogger:
        """See rclpy.node.Node."""
        ...

    def destroy_node(self) -> None:
        """See rclpy.node.Node."""
        ...


class ThreadResult(Generic[_T]):
    """A result that another thread makes and a coroutine in the executor's thread awaits."""

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor
        self._future: Future[_T] = Future(executor=executor)

    def set(self, result: _T) -> None:
        """Delivers the result, from any thread."""
        self._future.set_result(result)
        if self._executor is not None:
            self._executor.wake()  # an idle executor would otherwise not notice the result

    async def get(self) -> _T:
        """The result, once it is there."""
        result: _T = await self._future
        return result


def spin_until_shutdown(node: StoppableNode, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Runs ``node`` until SIGINT, SIGTERM or ``should_stop``; then ends its work and destroys it.

    rclpy must have been initialised without its own signal handlers: they shut the context down at once, and clients
    that wait for an answer would not get one. Must be called from the main thread.
    """
    stop = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stop.set())
    handler = _RosLogHandler(node.get_logger())
    package_log = logging.getLogger("spatial_mllm_ros")
    package_log.setLevel(logging.INFO)
    package_log.addHandler(handler)
    # The worker runs Python between its kernels; image callbacks must not wait 5 ms (the default) for their turn.
    sys.setswitchinterval(0.0005)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set() and not should_stop():
            executor.spin_once(timeout_sec=0.5)
        end_s = time.monotonic() + _LAST_QUESTIONS_S
        while time.monotonic() < end_s:
            executor.spin_once(timeout_sec=0.01)
        answers_are_due = node.busy
        node.close()
        end_s = time.monotonic() + _LAST_ANSWERS_S
        while node.busy and time.monotonic() < end_s:
            executor.spin_once(timeout_sec=0.05)
        if (
            answers_are_due
        ):  # rclpy cannot tell whether a client has a response, and a closed writer sends nothing again
            end_s = time.monotonic() + _DELIVERY_S
            while time.monotonic() < end_s:
                executor.spin_once(timeout_sec=0.05)
    finally:
        node.close()
        package_log.removeHandler(handler)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


class _RosLogHandler(logging.Handler):
    """Sends the package's log records to the node's logger, and so to /rosout."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """One record, at its level; rclpy ties a level to the line of the call, so each level has its own line."""
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)
