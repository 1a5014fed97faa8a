"""The nearest stamp: how messages and records of one moment find each other, live and in recordings."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")


def nearest_stamp(stamps_ns: Sequence[int], stamp_ns: int, slop_ns: int) -> int | None:
    """The position of the stamp nearest to ``stamp_ns``, the earlier of two equally near ones.

    Args:
        stamps_ns: ascending.
        stamp_ns: the wanted moment.
        slop_ns: the largest difference that still counts as the same moment.

    Returns:
        an index into ``stamps_ns``; None where no stamp is within ``slop_ns``.
    """
    at = bisect.bisect_left(stamps_ns, stamp_ns)
    if at > 0 and (at == len(stamps_ns) or stamp_ns - stamps_ns[at - 1] <= stamps_ns[at] - stamp_ns):
        at -= 1
    if at == len(stamps_ns) or abs(stamps_ns[at] - stamp_ns) > slop_ns:
        return None
    return at


class StampIndex(Generic[_T]):
    """The newest items by stamp, in a bounded store; finds the nearest within a tolerance."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._stamps_ns: list[int] = []
        self._items: list[_T] = []

    def add(self, stamp_ns: int, item: _T) -> None:
        """Keeps ``item``; a full store drops its oldest one. A stamp older than all others empties the store first."""
        if self._stamps_ns and stamp_ns < self._stamps_ns[0]:
            self.clear()
        at = bisect.bisect_left(self._stamps_ns, stamp_ns)
        self._stamps_ns.insert(at, stamp_ns)
        self._items.insert(at, item)
        if len(self._stamps_ns) > self._capacity:
            del self._stamps_ns[0], self._items[0]

    def nearest(self, stamp_ns: int, slop_ns: int) -> _T | None:
        """The item nearest to ``stamp_ns``; None where no item is within ``slop_ns``."""
        at = nearest_stamp(self._stamps_ns, stamp_ns, slop_ns)
        return None if at is None else self._items[at]

    @property
    def newest_ns(self) -> int:
        """The largest stamp held, 0 when empty."""
        return self._stamps_ns[-1] if self._stamps_ns else 0

    def clear(self) -> None:
        """Forgets everything."""
        self._stamps_ns.clear()
        self._items.clear()
