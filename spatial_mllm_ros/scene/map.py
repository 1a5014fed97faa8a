"""What is known of one epoch: the placed frames, their voxels, the keyframes, the anchors."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.coverage import CoverageIndex
from spatial_mllm_ros.scene.frame_points import relative_voxel_size, window_points
from spatial_mllm_ros.scene.free_space import seen_through
from spatial_mllm_ros.scene.greedy import covered_by, dense_ids, fill_up, lazy_greedy
from spatial_mllm_ros.scene.records import EvidenceSet, PlacedFrame, SceneSnapshot, Selection
from spatial_mllm_ros.scene.retention import OUTDATED_SHARE, frame_weights, least_useful_first, superseded
from spatial_mllm_ros.scene.saved.content import SceneContent
from spatial_mllm_ros.scene.stage_clock import Stage, StageClock
from spatial_mllm_ros.scene.voxels import coarsen, voxel_keys

_FILL_LEVELS = 2  # how many levels finer frames are compared when the grid itself is exhausted
_ANCHOR_OVERLAP = 0.6  # of a frame's voxels; below it a new anchor joins the older ones instead of replacing one
# A full store is cleared down to this share at once: ranking it costs the voxels of all that it holds.
_STORE_AFTER_CLEARING = 0.97


class EpochMap:
    """The frames of one epoch that have geometry: recent ones (in the ring), keyframes (beyond it), and their coverage.

    Not thread-safe; it belongs to the worker. An epoch's end is the end of the object, so nothing of it can survive.

    Args:
        config: bounds and choices.
        epoch: its number.
        anchor_count: frames of which the full geometry is kept for the encoder.
        count: told a cause and a number of frames whenever frames are left out.
        clock: where the time of placing, retiring and selecting frames is counted.
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
        self.anchors: list[Anchor] = []  #: for the next window, oldest first
        self._config = config
        self._anchor_count = anchor_count
        self._count = count
        self._clock = clock
        self._recent: dict[int, PlacedFrame] = {}  # by stamp, oldest first
        self._keyframes: dict[int, PlacedFrame] = {}  # by stamp, oldest first
        self._keyframe_bytes = 0
        self._coverage: CoverageIndex | None = None
        self._scale_source: ScaleSource | None = None
        self._newest_ns = 0

    @property
    def frame_count(self) -> int:
        """Frames that have geometry."""
        return len(self._keyframes) + len(self._recent)

    def is_recent(self, stamp_ns: int) -> bool:
        """Whether this frame has geometry and is in the ring."""
        return stamp_ns in self._recent

    def place(self, frames: Sequence[Frame], geometries: Sequence[FrameGeometry]) -> int:
        """Enters an encoded window; returns how many of its frames now have a place."""
        source = self._scale_source or geometries[0].scale_source
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
            self._scale_source = source
        with self._clock.running(Stage.VOXELISE):
            keys_of = [voxel_keys(part, coverage.voxel_size_fine) for _, _, part in seen]
        with self._clock.running(Stage.COVERAGE):
            for (frame, geometry, _), keys in zip(seen, keys_of, strict=True):
                if self._config.seen_through_frames:
                    self._clear_seen_through(geometry, coverage)
                coverage.add(frame.stamp_ns, keys)
                self._recent[frame.stamp_ns] = PlacedFrame(
                    frame, geometry.scene_from_cam, geometry.intrinsics, geometry.scale_source, keys
                )
            coverage.follow_extent()
        frame, geometry, _ = seen[-1]
        self._keep_anchor(Anchor(frame, geometry, keys_of[-1]), coverage)
        self._newest_ns = frame.stamp_ns
        self.revision += 1
        return len(seen)

    def retire_all_but(self, in_ring: Collection[int]) -> None:
        """Frames whose stamps are not in ``in_ring`` have left the ring: they become keyframes or are let go."""
        with self._clock.running(Stage.COVERAGE):
            for stamp_ns in [s for s in self._recent if s not in in_ring]:
                self._retire(stamp_ns, self._recent.pop(stamp_ns))

    def content(self, ring: Sequence[Frame], waiting: int) -> SceneContent:
        """All that is known; ``restore`` is the way back.

        Args:
            ring: the frames in the ring that wait for nothing.
            waiting: how many other frames are in the ring.
        """
        return SceneContent(
            epoch=self.epoch,
            placed=(*self._keyframes.values(), *self._recent.values()),
            unplaced=tuple(frame for frame in ring if not self.is_recent(frame.stamp_ns)),
            anchors=tuple(self.anchors),
            grid=None if self._coverage is None else self._coverage.state,
            scale_source=self._scale_source,
            newest_placed_ns=self._newest_ns,
            waiting=waiting,
        )

    def restore(self, content: SceneContent) -> None:
        """Fills a new map with ``content``, which must keep to the bounds of the configuration."""
        self._recent = {p.stamp_ns: p for p in content.placed if not p.is_keyframe}
        self._keyframes = {p.stamp_ns: p for p in content.placed if p.is_keyframe}
        self._keyframe_bytes = sum(p.frame.nbytes for p in self._keyframes.values())
        if content.grid is not None:
            self._coverage = CoverageIndex.restored(content.grid, content.placed)
        self._scale_source = content.scale_source
        self.anchors = list(content.anchors[-self._anchor_count :] if self._anchor_count else ())
        self._newest_ns = content.newest_placed_ns
        self.revision += 1

    def snapshot(self, unplaced: Sequence[Frame]) -> SceneSnapshot:
        """What is known now.

        Args:
            unplaced: frames without geometry that may fill up the evidence set.
        """
        placed = sorted([*self._keyframes.values(), *self._recent.values()], key=lambda p: p.stamp_ns)
        frames = sorted([*(p.frame for p in placed), *unplaced], key=lambda f: f.stamp_ns)
        with self._clock.running(Stage.SELECT):
            selection = self.select([f.stamp_ns for f in frames])
        chosen = set(selection.stamps_ns)
        maps = sum(a.geometry.points_scene.nbytes + a.geometry.confidence.nbytes for a in self.anchors)
        coverage = self._coverage
        return SceneSnapshot(
            evidence=EvidenceSet(selection, tuple(f for f in frames if f.stamp_ns in chosen), selection.gains),
            placed=tuple(placed),
            fine_voxel_size=0.0 if coverage is None else coverage.voxel_size_fine,
            level=0 if coverage is None else coverage.level,
            keyframes=len(self._keyframes),
            keyframe_bytes=self._keyframe_bytes,
            index_bytes=maps + (0 if coverage is None else coverage.nbytes),
        )

    def select(self, stamps_ns: Sequence[int]) -> Selection:
        """Selects min(K, n) of the n frames ``stamps_ns`` (in time order); those without geometry see nothing."""
        k = self._config.selected_frames
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
            scale_source=self._scale_source,
            newest_stamp_ns=self._newest_ns,
        )

    def _per_frame(
        self, stamps_ns: Sequence[int], voxels_of: Callable[[CoverageIndex, int], np.ndarray]
    ) -> list[np.ndarray]:
        coverage, nothing = self._coverage, np.empty(0, np.int64)
        return [voxels_of(coverage, s) if coverage is not None and s in coverage else nothing for s in stamps_ns]

    def _keep_anchor(self, anchor: Anchor, coverage: CoverageIndex) -> None:
        """The newest frame is always an anchor; older ones stay while the view has moved on since, against drift."""
        if self._anchor_count < 1:
            return
        if len(self.anchors) >= 2:
            now, before = (coarsen(a.fine_keys, coverage.level) for a in (anchor, self.anchors[-2]))
            if len(np.intersect1d(now, before, assume_unique=True)) >= _ANCHOR_OVERLAP * len(now):
                self.anchors.pop()
        self.anchors = [*self.anchors, anchor][-self._anchor_count :]

    def _retire(self, stamp_ns: int, placed: PlacedFrame) -> None:
        coverage = self._coverage
        if coverage is None:
            return
        self.revision += 1
        superfluous = superseded(self._config, coverage, stamp_ns)
        self._keyframes[stamp_ns] = replace(placed, is_keyframe=True)
        self._keyframe_bytes += placed.frame.nbytes
        coverage.keep(stamp_ns)
        for let_go in superfluous:
            self._let_go(let_go, coverage)
        if self._store_is_over(1.0):
            for let_go in least_useful_first(self._config, coverage, list(self._keyframes), self._newest_ns):
                self._let_go(let_go, coverage)
                if not self._store_is_over(_STORE_AFTER_CLEARING):
                    break

    def _store_is_over(self, share: float) -> bool:
        frames, most = len(self._keyframes), self._config.keyframes
        over_bytes = self._keyframe_bytes > share * self._config.keyframe_bytes
        return frames > math.ceil(share * most) or over_bytes

    def _let_go(self, stamp_ns: int, coverage: CoverageIndex) -> None:
        self._keyframe_bytes -= self._keyframes.pop(stamp_ns).frame.nbytes
        coverage.remove(stamp_ns)

    def _clear_seen_through(self, geometry: FrameGeometry, coverage: CoverageIndex) -> None:
        keys = seen_through(geometry, coverage.voxel_size_fine, coverage.level, coverage.occupied_among)
        for stamp_ns in coverage.see_through(keys, self._config.seen_through_frames):
            held = self._recent if stamp_ns in self._recent else self._keyframes
            held[stamp_ns] = replace(
                held[stamp_ns],
                fine_keys=coverage.fine_keys(stamp_ns),
                contradicted_voxels=coverage.contradicted_voxels(stamp_ns),
            )


def selection_of(content: SceneContent, config: SceneConfig) -> Selection:
    """The evidence set of a scene of this configuration that holds ``content``."""
    view = EpochMap(config, content.epoch, len(content.anchors), lambda _cause, _frames: None, StageClock())
    view.restore(content)
    return view.select(sorted(frame.stamp_ns for frame in content.frames))


def _finer_keys(coverage: CoverageIndex, stamp_ns: int) -> np.ndarray:
    if coverage.contradicted_share(stamp_ns) >= OUTDATED_SHARE:
        return np.empty(0, np.int64)  # it shows the scene as it was: it fills up after all others
    return coarsen(coverage.fine_keys(stamp_ns), max(0, coverage.level - _FILL_LEVELS))
