"""The points of a clip that may be used, gathered frame by frame into a buffer that is used again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Box:
    """An axis-aligned box, corners float32 [3]."""

    low: np.ndarray
    high: np.ndarray

    @property
    def sides(self) -> np.ndarray:
        """Lengths float32 [3]."""
        return self.high - self.low


@dataclass(frozen=True, eq=False)
class Extent:
    """What the points of one frame are like: number, box (None when there are none), every n-th of them."""

    count: int
    box: Box | None
    sample: np.ndarray
    finite: bool  #: no point had to be left out for not being finite


@dataclass(frozen=True, eq=False)
class UsablePoints:
    """Which points of a clip are used, and access to them.

    Attributes:
        points: float32 [T, N, 3].
        confidence: float32 [T, N].
        threshold, floor: a point is used when confidence >= threshold and confidence > floor ...
        all_finite: ... and, unless all confidences are known to be, it is finite ...
        points_finite: ... and, unless those of all other points are known to be, its coordinates are finite ...
        fence: ... and the point lies in this box, where there is one.
    """

    points: np.ndarray
    confidence: np.ndarray
    threshold: np.float32
    floor: np.float32
    all_finite: bool
    points_finite: bool = False
    fence: Box | None = None
    _scratch: threading.local = field(default_factory=threading.local, repr=False)

    def of_frame(self, t: int) -> np.ndarray:
        """The points of frame ``t`` that are used, float32 [n, 3].

        The array may be changed, and is overwritten by this thread's next call: fresh memory for every frame costs more
        than the gathering itself.
        """
        confidence = self.confidence[t]
        mask = confidence >= self.threshold
        if not self.threshold > self.floor:
            mask &= confidence > self.floor
        if not self.all_finite:
            mask &= np.isfinite(confidence)
        indices = np.flatnonzero(mask)
        buffer = getattr(self._scratch, "points", None)
        if buffer is None:
            buffer = self._scratch.points = np.empty(self.points.shape[1:], np.float32)
        # mode "clip" writes straight into the buffer; the indices cannot be out of range
        part = np.take(self.points[t], indices, axis=0, out=buffer[: len(indices)], mode="clip")
        if not self.points_finite and not _is_finite(_bounds(part)):
            part = part[np.isfinite(part).all(axis=1)]
        if self.fence is not None:
            part = part[((part >= self.fence.low) & (part <= self.fence.high)).all(axis=1)]
        return part

    def extent(self, t: int, sample_stride: int) -> Extent:
        """Number, box and every ``sample_stride``-th of the points of frame ``t`` that are used."""
        part = replace(self, points_finite=True).of_frame(t)
        box = _bounds(part)
        finite = _is_finite(box)
        if not finite:
            part = part[np.isfinite(part).all(axis=1)]
            box = _bounds(part)
        return Extent(len(part), box, part[::sample_stride].copy(), finite)


def united(extents: Sequence[Extent]) -> Box | None:
    """The box around all of them; None when no frame has a point."""
    boxes = [e.box for e in extents if e.box is not None]
    if not boxes:
        return None
    return Box(np.min([b.low for b in boxes], axis=0), np.max([b.high for b in boxes], axis=0))


def _is_finite(box: Box | None) -> bool:
    return box is None or bool(np.isfinite(box.low).all() and np.isfinite(box.high).all())


def _bounds(points: np.ndarray) -> Box | None:
    if len(points) == 0:
        return None
    # a reduction over long rows is vectorised, one over rows of three numbers is not
    whole = len(points) // _BLOCK * _BLOCK
    lows, highs = [points[whole:]], [points[whole:]]
    if whole:
        rows = points[:whole].reshape(-1, 3 * _BLOCK)
        lows.append(rows.min(axis=0).reshape(-1, 3))
        highs.append(rows.max(axis=0).reshape(-1, 3))
    return Box(np.concatenate(lows).min(axis=0), np.concatenate(highs).max(axis=0))
