"""How much a frame's gain counts, and which frames are kept beyond the ring.

A robot may walk for an hour, and the scene keeps a bounded number of frames. Three rules decide which ones:

- *Age.* What a frame adds counts by a few percent less the older the frame is. So a newer frame takes the place of an
  older one that shows nearly the same, and coverage that only an old frame gives still counts nearly in full.
- *Change.* A frame that newer frames contradict (``CoverageIndex.see_through``) counts less, down to a twentieth: it
  stays only while no other frame shows the rest of what it saw.
- *No duplicates.* A frame that leaves the ring becomes a keyframe only for what no keyframe shows yet, or in the place
  of older keyframes that it makes superfluous. Walking the same way again therefore adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.coverage import CoverageIndex
from spatial_mllm_ros.scene.greedy import lazy_greedy

OUTDATED_SHARE = 0.02  #: a frame of which this part was cleared is outdated: it shows the scene as it was
_OUTDATED_WEIGHT = 0.05


def frame_weights(
    config: SceneConfig, coverage: CoverageIndex, stamps_ns: Sequence[int], newest_ns: int
) -> list[float]:
    """By how much each frame's gain counts, in (0, 1].

    ``1 - age_discount (1 - 2^-n)`` for a frame that is n half-lives old, times ``1 - cleared / 2 %`` (at least 1/20)
    for one of which a part was cleared. Half-lives are counted by the clock, not from the frame: weights change for all
    frames at once and seldom, so that the evidence set is not another one after every frame.

    Args:
        stamps_ns: frames; one that is not in ``coverage`` has weight 1.
        newest_ns: the moment from which ages count.
    """
    half_life_ns = max(1, round(config.age_half_life_s * 1e9))
    weights = []
    for stamp_ns in stamps_ns:
        half_lives = max(0, newest_ns // half_life_ns - stamp_ns // half_life_ns)
        weight = 1.0 - config.age_discount * (1.0 - 0.5 ** min(half_lives, 60))
        if stamp_ns in coverage:
            weight *= max(_OUTDATED_WEIGHT, 1.0 - coverage.contradicted_share(stamp_ns) / OUTDATED_SHARE)
        weights.append(weight)
    return weights


def superseded(config: SceneConfig, coverage: CoverageIndex, newcomer: int) -> list[int]:
    """Which frames to let go when ``newcomer`` leaves the ring: itself, or keyframes that it makes superfluous.

    Itself, when newer frames in the ring show all of it, or when it neither adds ``keyframe_min_gain`` voxels to those
    of the keyframes nor takes the place of one that counts less. Keyframes, when they see some of its voxels and fewer
    than half of ``keyframe_min_gain`` that no other keyframe sees, those that count least first; fewer voxels than that
    per frame are then known by no keyframe. A slow pan does not lose a whole wall in this way, because frames are
    compared with keyframes and not with each other: the first frame that shows enough of new wall is kept.

    It costs the voxels of the newcomer and of the few keyframes that see hardly any voxel alone.

    Args:
        newcomer: stamp of a frame that is no keyframe yet; the others that are none are in the ring, and newer than it.
    """
    kept_by = coverage.keyframe_counts(newcomer)
    in_ring = coverage.frame_counts(newcomer) - kept_by - 1
    if config.keyframes == 0 or (in_ring > 0).all():
        return [newcomer]
    adds = int(np.count_nonzero(kept_by == 0)) >= config.keyframe_min_gain
    keyframes = list(coverage.seen_alone)
    *weights, own_weight = frame_weights(config, coverage, [*keyframes, newcomer], newcomer)
    no_longer_alone = coverage.sole_keyframes(newcomer)
    least, let_go = max(1, config.keyframe_min_gain // 2), list[int]()
    for weight, stamp_ns in sorted(zip(weights, keyframes, strict=True)):
        if not adds and weight >= own_weight:
            break
        if coverage.seen_alone[stamp_ns] - no_longer_alone.get(stamp_ns, 0) >= least:
            continue  # and what others leave to it by going can only be more
        is_also_newcomers = np.isin(coverage.slots(stamp_ns), coverage.slots(newcomer))
        seen_by = coverage.keyframe_counts(stamp_ns) + is_also_newcomers
        for other in let_go:
            seen_by -= np.isin(coverage.slots(stamp_ns), coverage.slots(other))
        if is_also_newcomers.any() and int(np.count_nonzero(seen_by == 1)) < least:
            let_go.append(stamp_ns)
    return let_go if adds or let_go else [newcomer]


def least_useful_first(
    config: SceneConfig, coverage: CoverageIndex, keyframes: Sequence[int], newest_ns: int
) -> list[int]:
    """The keyframes in the order in which to let them go: those that the greedy method picks last, or not at all.

    The frames which a selection would choose are kept in this way. If the frames with the fewest voxels of their own
    were dropped instead, frames that see few voxels, but alone, would stay, and 16 of them would cover less.
    """
    weights = frame_weights(config, coverage, keyframes, newest_ns)
    voxels = [coverage.slots(s) for s in keyframes]
    order, _ = lazy_greedy(voxels, coverage.slot_count, len(keyframes), weights=weights)
    picked = set(order)
    return [s for i, s in enumerate(keyframes) if i not in picked] + [keyframes[i] for i in reversed(order)]
