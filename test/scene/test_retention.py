from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.coverage import CoverageIndex
from spatial_mllm_ros.scene.retention import frame_weights, least_useful_first, superseded
from spatial_mllm_ros.scene.voxels import pack_cells

S = 1_000_000_000
CONFIG = SceneConfig(keyframe_min_gain=4, age_half_life_s=10.0, age_discount=0.2)


def index_of(**frames):
    """Frames named t<seconds> that see cells first..last of a row of voxels."""
    index = CoverageIndex(1.0)
    for name, (first, last) in frames.items():
        cells = np.array([[x, 0, 0] for x in range(first, last)])
        index.add(int(name[1:]) * S, np.sort(pack_cells(cells)))
    return index


def gone(index, newcomer, *keyframes, config=CONFIG):
    for t in keyframes:
        if t * S not in index.seen_alone:
            index.keep(t * S)
    return [s // S for s in superseded(config, index, newcomer * S)]


def test_weights_fall_by_half_lives_of_the_clock_and_no_lower_than_the_discount():
    weights = frame_weights(CONFIG, CoverageIndex(1.0), [S, 9 * S, 11 * S, 39 * S], 39 * S)
    np.testing.assert_allclose(weights, [1 - 0.2 * 7 / 8, 1 - 0.2 * 7 / 8, 1 - 0.2 * 3 / 4, 1.0])
    assert frame_weights(CONFIG, CoverageIndex(1.0), [S], 10**6 * S)[0] == pytest.approx(0.8)
    assert frame_weights(replace(CONFIG, age_discount=0.0), CoverageIndex(1.0), [S], 10**6 * S) == [1.0]


def test_weights_stay_the_same_from_frame_to_frame_within_a_half_life():
    stamps = [12 * S, 15 * S, 21 * S]
    assert frame_weights(CONFIG, CoverageIndex(1.0), stamps, 22 * S) == frame_weights(
        CONFIG, CoverageIndex(1.0), stamps, 29 * S
    )


def test_a_frame_that_newer_ones_contradict_counts_less_but_never_nothing():
    index = index_of(t1=(0, 200), t2=(0, 200))
    seen = index.fine_keys(S)
    index.remove(2 * S)
    index.see_through(seen[:2], 1)
    (little,) = frame_weights(CONFIG, index, [S], S)
    assert little == pytest.approx(0.5)
    index.see_through(seen[2:60], 1)
    (much,) = frame_weights(CONFIG, index, [S], S)
    assert 0 < much < 0.1


def test_a_frame_that_shows_nothing_new_is_let_go_and_one_that_does_is_kept():
    assert gone(index_of(t1=(0, 20), t2=(1, 20)), 2, 1) == [2]
    assert gone(index_of(t1=(0, 20), t2=(3, 23)), 2, 1) == [2]  # three voxels are too few
    assert gone(index_of(t1=(0, 20), t2=(4, 24)), 2, 1) == []


def test_a_frame_of_which_newer_ones_in_the_ring_show_all_is_let_go():
    assert gone(index_of(t1=(0, 20), t2=(30, 50), t3=(25, 40), t4=(40, 60)), 2, 1) == [2]


def test_a_newer_frame_replaces_an_old_one_that_shows_nearly_the_same_and_no_other():
    index = index_of(t1=(0, 20), t3=(40, 60), t25=(0, 19))
    assert gone(index, 25, 1, 3) == [1]
    assert gone(index, 25, 1, 3, config=replace(CONFIG, age_discount=0.0)) == [25]
    kept = index_of(t1=(0, 20), t25=(0, 18))  # two voxels only the old one has
    assert gone(kept, 25, 1) == [25]


def test_a_slow_pan_keeps_all_of_the_wall():
    wall, width = 120, 20
    index = CoverageIndex(1.0)
    for step in range(wall - width + 1):
        stamp_ns = (1 + step) * S
        index.add(stamp_ns, np.sort(pack_cells(np.array([[step + x, 0, 0] for x in range(width)]))))
        let_go = superseded(CONFIG, index, stamp_ns)
        index.keep(stamp_ns)
        for s in let_go:
            index.remove(s)
    assert len(np.unique(np.concatenate([index.slots(s) for s in index.seen_alone]))) >= wall - 3
    assert len(index.seen_alone) < 40


def test_the_first_to_go_are_those_that_the_greedy_method_would_not_pick_or_picks_last():
    index = index_of(t1=(0, 20), t2=(30, 32), t3=(0, 20), t4=(40, 50))
    assert [s // S for s in least_useful_first(CONFIG, index, [S, 2 * S, 3 * S, 4 * S], 4 * S)] == [3, 2, 4, 1]
