"""One guard around every callback that rclpy calls: nothing that a message or a request holds can end the process."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

_P = ParamSpec("_P")
_T = TypeVar("_T")
_LOG_EVERY_S = 10.0


class CallbackGuard:
    """Catches, logs and counts what a callback raises, so that the executor goes on.

    Not for several threads: the executor's thread alone calls guarded callbacks.

    Args:
        logger: the node's.

    Attributes:
        failures: how often a callback has raised.
        last_failure: where the latest one did, and what; "" before the first.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self.failures = 0
        self.last_failure = ""

    def around(self, where: str, callback: Callable[_P, _T]) -> Callable[_P, _T | None]:
        """``callback``, with None in place of an exception. ``where`` names the topic or timer for the log."""

        @functools.wraps(callback)
        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T | None:
            try:
                return callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 (whatever a message makes fail, the node goes on)
                self.note(where, error)
                return None

        return guarded

    def around_async(
        self, where: str, callback: Callable[_P, Awaitable[_T]], otherwise: Callable[[Exception], _T]
    ) -> Callable[_P, Awaitable[_T]]:
        """A coroutine ``callback``, with ``otherwise(error)`` as its result where it raises: a client waits for one."""

        @functools.wraps(callback)
        async def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return await callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 (as above)
                self.note(where, error)
                return otherwise(error)

        return guarded

    def note(self, where: str, error: Exception) -> None:
        """Counts and logs an exception that was caught elsewhere."""
        self.failures += 1
        self.last_failure = f"{where}: {type(error).__name__}: {error}"
        self._logger.error(
            f"{self.last_failure}; the callback was left. Please report it with the messages that led to it.",
            throttle_duration_sec=_LOG_EVERY_S,
        )
