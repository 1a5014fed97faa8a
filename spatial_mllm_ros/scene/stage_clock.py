"""How long each stage of a scene takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum


class Stage(str, Enum):
    """What a scene does with a frame, in this order."""

    ENCODE = "encode"  #: geometry from the encoder
    VOXELISE = "voxelise"  #: usable points, and the voxels they lie in
    COVERAGE = "coverage"  #: frames into the shared counts and out of them, keyframes, the grid's level
    SELECT = "select"  #: the evidence set


class StageClock:
    """Adds up the time spent per stage, steady clock; one thread at a time may be in a stage."""

    def __init__(self) -> None:
        self._spent_ns = dict.fromkeys(Stage, 0)

    @contextmanager
    def running(self, stage: Stage) -> Iterator[None]:
        """Counts the time inside the block, also when it fails."""
        started_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            self._spent_ns[stage] += time.perf_counter_ns() - started_ns

    def spent_ns(self) -> Mapping[Stage, int]:
        """Nanoseconds per stage since the clock was made."""
        return dict(self._spent_ns)
