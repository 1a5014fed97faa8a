"""What a scene keeps and how it selects."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spatial_mllm_ros.errors import ConfigurationError

_MIB = 1 << 20
_MOST_SIGHTINGS = 255  # they are counted in bytes


@dataclass(frozen=True)
class SceneConfig:
    """Bounds and choices of a ``Scene``.

    Attributes:
        ring_frames, ring_bytes: most frames, and most bytes of pixels with depth, among the most recent ones.
        keyframes, keyframe_bytes: the same for frames kept beyond the ring; 0 keyframes keeps none.
        keyframe_min_gain: a frame that leaves the ring is kept if it shows this many voxels that no keyframe sees yet,
            or replaces an older keyframe; a keyframe that alone shows fewer than half as many is let go.
        rate_hz: frames closer together than 1 / rate_hz (within 5 %, for jitter) are not buffered; 0 buffers all.
        selected_frames: size of the evidence set.
        voxel_size_m: edge of a fine voxel where the scene is metric; relative to the scene where it is not.
        age_half_life_s, age_discount: a frame's gain counts by up to ``age_discount`` less the older the frame is, by
            half of that after one half-life: of two frames that show nearly the same, the newer one is preferred. Ages
            count in whole half-lives of the stamps' clock. With a discount of 0 age does not count.
        seen_through_frames: when that many frames have seen through a voxel since a frame last saw a surface in it, the
            voxel is cleared: older frames no longer count it, and are themselves preferred less. 0: never.
        min_confidence_percentile: points below this percentile of the confidences of their window are left out.
        max_points_per_frame: denser point maps are thinned to this many points at most, regularly.
        time_jump_ns: a stamp that goes back by more than this starts a new epoch; by less, the frame is rejected.
    """

    ring_frames: int = 64
    ring_bytes: int = 256 * _MIB
    keyframes: int = 256
    keyframe_bytes: int = 512 * _MIB
    keyframe_min_gain: int = 4
    rate_hz: float = 5.0
    selected_frames: int = 16
    voxel_size_m: float = 0.02
    age_half_life_s: float = 30.0
    age_discount: float = 0.05
    seen_through_frames: int = 3
    min_confidence_percentile: float = 50.0
    max_points_per_frame: int = 50_000
    time_jump_ns: int = 1_000_000_000

    def __post_init__(self) -> None:
        least = {
            "ring_frames": 1,
            "ring_bytes": 1,
            "keyframes": 0,
            "keyframe_bytes": 0,
            "keyframe_min_gain": 1,
            "selected_frames": 1,
            "seen_through_frames": 0,
            "max_points_per_frame": 1,
            "time_jump_ns": 0,
        }
        wrong = [
            f"SceneConfig.{name} is {getattr(self, name)!r}; it must be a whole number of at least {bound}."
            for name, bound in least.items()
            if not isinstance(getattr(self, name), int) or getattr(self, name) < bound
        ]
        if not (math.isfinite(self.rate_hz) and self.rate_hz >= 0):
            wrong.append(f"SceneConfig.rate_hz is {self.rate_hz!r}; it must be finite and at least 0 (0: every frame).")
        if not (math.isfinite(self.voxel_size_m) and self.voxel_size_m > 0):
            wrong.append(f"SceneConfig.voxel_size_m is {self.voxel_size_m!r}; it must be finite and above 0.")
        if not (math.isfinite(self.age_half_life_s) and self.age_half_life_s > 0):
            wrong.append(f"SceneConfig.age_half_life_s is {self.age_half_life_s!r}; it must be finite and above 0.")
        if isinstance(self.seen_through_frames, int) and self.seen_through_frames > _MOST_SIGHTINGS:
            wrong.append(
                f"SceneConfig.seen_through_frames is {self.seen_through_frames}; it must be {_MOST_SIGHTINGS} at most."
            )
        if not 0 <= self.age_discount < 1:
            wrong.append(f"SceneConfig.age_discount is {self.age_discount!r}; it must be in [0, 1).")
        if not 0 <= self.min_confidence_percentile < 100:
            wrong.append(
                f"SceneConfig.min_confidence_percentile is {self.min_confidence_percentile!r}; it must be in [0, 100)."
            )
        if wrong:
            raise ConfigurationError(" ".join(wrong))

    @property
    def min_interval_ns(self) -> int:
        """Least time between buffered frames."""
        return 0 if self.rate_hz == 0 else int(0.95e9 / self.rate_hz)
