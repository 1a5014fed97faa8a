"""What is known of one epoch: the placed frames, their voxels, the keyframes, the anchors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.coverage import CoverageIndex
from spatial_mllm_ros.scene.frame_points import relative_voxel_size, window_points
from spatial_mllm_ros.scene.free_space import looked_through
from spatial_mllm_ros.scene.greedy import covered_by, dense_ids, fill_up, lazy_greedy
from spatial_mllm_ros.scene.records import PlacedFrame, Selection
from spatial_mllm_ros.scene.retention import OUTDATED_SHARE, frame_weights, least_useful_first, superseded
from spatial_mllm_ros.scene.saved.content import HeldAnchor, HeldFrame, SceneContent
from spatial_mllm_ros.scene.stage_clock import Stage, StageClock
from spatial_mllm_ros.scene.voxels import coarsen, voxel_keys

_FILL_LEVELS = 2  # how many levels finer frames are compared when the grid itself is exhausted
_ANCHOR_OVERLAP = 0.6  # of a frame's voxels; below it a new anchor joins the older ones instead of replacing one


# A full store is cleared down to this share at once: ranking it costs the voxels of all that it holds.
_STORE_AFTER_CLEARING = 0.97


@dataclass(frozen=True, eq=False)
class _Placed:
    frame: Frame
    record: PlacedFrame


class EpochMap:
    """The frames of one epoch that have geometry: recent ones (in the ring), keyframes (beyond it), and their coverage.

    Not thread-safe; a ``Scene`` guards it. An epoch's end is the end of the object, so nothing of it can survive.

    Args:
        config: bounds and choices.
        epoch: its number.
        anchor_count: frames of which the full geometry is kept for the encoder.
        count: told a cause and a number of frames whenever frames are left out.
        clock: where the time of placing and retiring frames is counted.
    """

    def __init__(
        self,
        config: SceneConfig,
        epoch: int,
        anchor_count: int,
        count: Callable[[str, int], None],
        clock: StageClock,
    ) -> None:
        self.epoch = epoch
        self.revision = 0  #: grows with every change
        self.scale_source: ScaleSource | None = None
        self.keyframe_bytes = 0
        self._config = config
        self._anchor_count = anchor_count
        self._count = count
        self._clock = clock
        self._recent: dict[int, _Placed] = {}  # by stamp, oldest first
        self._keyframes: dict[int, _Placed] = {}  # by stamp, oldest first
        self._coverage: CoverageIndex | None = None
        self._anchors: list[tuple[Anchor, np.ndarray]] = []  # with their fine voxels
        self._newest_ns = 0

    @property
    def anchors(self) -> list[Anchor]:
        """The anchors for the next window, oldest first."""
        return [anchor for anchor, _ in self._anchors]

    @property
    def keyframe_count(self) -> int:
        """Frames kept beyond the ring."""
        return len(self._keyframes)

    @property
    def index_bytes(self) -> int:
        """Bytes of voxel keys, counts and anchors' point maps."""
        maps = sum(a.geometry.points_scene.nbytes + a.geometry.confidence.nbytes for a in self.anchors)
        return maps + (0 if self._coverage is None else self._coverage.nbytes)

    def frames(self) -> list[Frame]:
        """All frames that have geometry, in time order."""
        return [p.frame for p in self._all()]

    def is_recent(self, stamp_ns: int) -> bool:
        """Whether this frame has geometry and is in the ring."""
        return stamp_ns in self._recent

    def recent_stamps_ns(self) -> set[int]:
        """The frames that have geometry and are in the ring."""
        return set(self._recent)

    def records(self) -> list[PlacedFrame]:
        """Where all frames were taken, in time order."""
        return [replace(p.record, is_keyframe=p.record.stamp_ns in self._keyframes) for p in self._all()]

    def place(self, frames: Sequence[Frame], geometries: Sequence[FrameGeometry]) -> int:
        """Enters an encoded window; returns how many of its frames now have a place."""
        source = self.scale_source or geometries[0].scale_source
        fitting = [
            (f, g) for f, g in zip(frames, geometries, strict=True) if g.scale_source.is_metric == source.is_metric
        ]
        if len(fitting) < len(frames):  # lengths of two kinds must not meet in one grid
            self._count("scale", len(frames) - len(fitting))
        if not fitting:
            return 0
        with self._clock.running(Stage.VOXELISE):
            points = window_points(
                [g for _, g in fitting], self._config.min_confidence_percentile, self._config.max_points_per_frame
            )
        seen = [(f, g, p) for (f, g), p in zip(fitting, points, strict=True) if len(p)]
        if len(seen) < len(fitting):
            self._count("no_points", len(fitting) - len(seen))
        if not seen:
            return 0
        coverage = self._coverage
        if coverage is None:
            every = np.concatenate([p for _, _, p in seen])
            size = self._config.voxel_size_m if source.is_metric else relative_voxel_size(every)
            coverage = self._coverage = CoverageIndex(size)
            self.scale_source = source
        with self._clock.running(Stage.VOXELISE):
            keys_of = [voxel_keys(part, coverage.voxel_size_fine) for _, _, part in seen]
        with self._clock.running(Stage.COVERAGE):
            for (frame, geometry, _), keys in zip(seen, keys_of, strict=True):
                if self._config.seen_through_frames:
                    self._forget_what_has_gone(geometry, coverage)
                coverage.add(frame.stamp_ns, keys)
                record = PlacedFrame(
                    frame.stamp_ns, geometry.scene_from_cam, geometry.intrinsics, geometry.scale_source, keys, False
                )
                self._recent[frame.stamp_ns] = _Placed(frame, record)
            coverage.follow_extent()
        frame, geometry, _ = seen[-1]
        self._keep_anchor(Anchor(frame, geometry), coverage)
        self._newest_ns = frame.stamp_ns
        self.revision += 1
        return len(seen)

    def retire_before(self, oldest_ns: int) -> None:
        """Frames older than ``oldest_ns`` have left the ring: they become keyframes or are let go."""
        with self._clock.running(Stage.COVERAGE):
            while self._recent:
                stamp_ns = next(iter(self._recent))
                if stamp_ns >= oldest_ns:
                    break
                self._retire(stamp_ns, self._recent.pop(stamp_ns))

    def retire_all(self) -> None:
        """No frame is in the ring any more."""
        with self._clock.running(Stage.COVERAGE):
            for stamp_ns in list(self._recent):
                self._retire(stamp_ns, self._recent.pop(stamp_ns))

    def content(self, ring: Sequence[Frame], waiting: int) -> SceneContent:
        """All that is known, with the frames of the ring that wait for nothing; ``take_over`` is the way back."""
        records = {record.stamp_ns: replace(record, is_keyframe=False) for record in self.records()}
        lost = {s: 0 if self._coverage is None else self._coverage.lost_voxels(s) for s in records}

        def held(frame: Frame, *, in_ring: bool) -> HeldFrame:
            return HeldFrame(frame, records.get(frame.stamp_ns), in_ring, lost.get(frame.stamp_ns, 0))

        return SceneContent(
            epoch=self.epoch,
            held=(
                *(held(p.frame, in_ring=False) for p in self._keyframes.values()),
                *(held(frame, in_ring=True) for frame in ring),
            ),
            anchors=tuple(HeldAnchor(anchor, keys) for anchor, keys in self._anchors),
            grid=None if self._coverage is None else self._coverage.state,
            scale_source=self.scale_source,
            newest_placed_ns=self._newest_ns,
            waiting=waiting,
        )

    def take_over(self, content: SceneContent) -> None:
        """Fills a new map with ``content``, which must keep to the bounds of the configuration."""
        placed = [(h, _Placed(h.frame, h.placed)) for h in content.held if h.placed is not None]
        self._recent = {p.record.stamp_ns: p for h, p in placed if h.in_ring}
        self._keyframes = {p.record.stamp_ns: p for h, p in placed if not h.in_ring}
        self.keyframe_bytes = sum(p.frame.nbytes for p in self._keyframes.values())
        if content.grid is not None:
            keys = {p.record.stamp_ns: p.record.fine_keys for _, p in placed}
            lost = {p.record.stamp_ns: h.lost_voxels for h, p in placed}
            self._coverage = CoverageIndex.restored(content.grid, keys, lost)
        self.scale_source = content.scale_source
        anchors = content.anchors[-self._anchor_count :] if self._anchor_count else ()
        self._anchors = [(h.anchor, h.fine_keys) for h in anchors]
        self._newest_ns = content.newest_placed_ns
        self.revision += 1

    def choose(self, stamps_ns: Sequence[int], k: int) -> Selection:
        """Selects min(k, n) of the n frames ``stamps_ns`` (in time order); those without geometry see nothing."""
        voxels = self._per_frame(stamps_ns, CoverageIndex.slots)
        count = 0 if self._coverage is None else self._coverage.slot_count
        coverage = self._coverage
        weights = None if coverage is None else frame_weights(self._config, coverage, stamps_ns, self._newest_ns)
        picks, gains = lazy_greedy(voxels, count, k, weights=weights)
        order = list(picks)
        if len(order) < min(k, len(stamps_ns)):
            finer = self._per_frame(stamps_ns, _finer_keys)
            ids, finer_count = dense_ids(finer)
            order += fill_up(ids, finer_count, picks, stamps_ns, k)
        gain_of = dict(zip(picks, gains, strict=True))
        order.sort()
        return Selection(
            epoch=self.epoch,
            stamps_ns=tuple(stamps_ns[i] for i in order),
            gains=tuple(gain_of.get(i, 0) for i in order),
            covered_voxels=covered_by(voxels, count, order),
            total_voxels=0 if self._coverage is None else self._coverage.total_voxels,
            voxel_size=0.0 if self._coverage is None else self._coverage.voxel_size,
            scale_source=self.scale_source,
            newest_stamp_ns=self._newest_ns,
        )

    def occupied(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres float32 [n, 3] of the voxels seen, scene frame, and by how many frames each, int32 [n]."""
        if self._coverage is None:
            return np.empty((0, 3), np.float32), np.empty(0, np.int32)
        return self._coverage.occupied()

    @property
    def grid(self) -> tuple[float, int]:
        """Edge length of a fine voxel (0 without geometry), and the level: the grid's voxels are 2^level as long."""
        return (0.0, 0) if self._coverage is None else (self._coverage.voxel_size_fine, self._coverage.level)

    def covered(self, stamps_ns: Iterable[int]) -> int:
        """How many voxels of the present grid the frames see together; frames without geometry see none."""
        coverage = self._coverage
        return 0 if coverage is None else coverage.covered([s for s in stamps_ns if s in coverage])

    def _all(self) -> list[_Placed]:
        return [*self._keyframes.values(), *self._recent.values()]  # keyframes have left the ring: all are older

    def _per_frame(
        self, stamps_ns: Sequence[int], voxels_of: Callable[[CoverageIndex, int], np.ndarray]
    ) -> list[np.ndarray]:
        coverage, nothing = self._coverage, np.empty(0, np.int64)
        return [voxels_of(coverage, s) if coverage is not None and s in coverage else nothing for s in stamps_ns]

    def _keep_anchor(self, anchor: Anchor, coverage: CoverageIndex) -> None:
        """The newest frame is always an anchor; older ones stay while the view has moved on since, against drift."""
        if self._anchor_count < 1:
            return
        fine = coverage.fine_keys(anchor.frame.stamp_ns)
        if len(self._anchors) >= 2:
            now, before = coarsen(fine, coverage.level), coarsen(self._anchors[-2][1], coverage.level)
            if len(np.intersect1d(now, before, assume_unique=True)) >= _ANCHOR_OVERLAP * len(now):
                self._anchors.pop()
        self._anchors = [*self._anchors, (anchor, fine)][-self._anchor_count :]

    def _retire(self, stamp_ns: int, placed: _Placed) -> None:
        coverage = self._coverage
        if coverage is None:
            return
        self.revision += 1
        self._keyframes[stamp_ns] = placed
        self.keyframe_bytes += placed.frame.nbytes
        older = [s for s in self._keyframes if s != stamp_ns]
        for gone in superseded(self._config, coverage, older, stamp_ns):
            self._let_go(gone, coverage)
        if self._store_is_over(1.0):
            for gone in least_useful_first(self._config, coverage, list(self._keyframes), self._newest_ns):
                self._let_go(gone, coverage)
                if not self._store_is_over(_STORE_AFTER_CLEARING):
                    break

    def _store_is_over(self, share: float) -> bool:
        frames, most = len(self._keyframes), self._config.keyframes
        over_bytes = self.keyframe_bytes > share * self._config.keyframe_bytes
        return frames > math.ceil(share * most) or over_bytes

    def _let_go(self, stamp_ns: int, coverage: CoverageIndex) -> None:
        self.keyframe_bytes -= self._keyframes.pop(stamp_ns).frame.nbytes
        coverage.remove(stamp_ns)

    def _forget_what_has_gone(self, geometry: FrameGeometry, coverage: CoverageIndex) -> None:
        keys = looked_through(geometry, coverage.voxel_size_fine, coverage.level, coverage.occupied_among)
        for stamp_ns in coverage.look_through(keys, self._config.seen_through_frames):
            held = self._recent if stamp_ns in self._recent else self._keyframes
            record = replace(held[stamp_ns].record, fine_keys=coverage.fine_keys(stamp_ns))
            held[stamp_ns] = replace(held[stamp_ns], record=record)


def _finer_keys(coverage: CoverageIndex, stamp_ns: int) -> np.ndarray:
    if coverage.lost_share(stamp_ns) >= OUTDATED_SHARE:
        return np.empty(0, np.int64)  # shows what has gone: fills up after all others
    return coarsen(coverage.fine_keys(stamp_ns), max(0, coverage.level - _FILL_LEVELS))
