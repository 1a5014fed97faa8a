import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.scene.greedy import covered_by, dense_ids, farthest_in_time, largest_gains, lazy_greedy
from spatial_mllm_ros.scene.voxels import pack_cells

sets = st.lists(st.sets(st.integers(0, 25)), max_size=12)


def arrays(frames):
    return [np.array(sorted(frame), np.int64) for frame in frames]


def plain_greedy(frames, k):
    covered, order = set(), []
    while len(order) < k:
        gains = [len(f - covered) if i not in order else 0 for i, f in enumerate(frames)]
        if not gains or max(gains) == 0:
            break
        order.append(gains.index(max(gains)))
        covered |= frames[order[-1]]
    return order, len(covered)


@settings(deadline=None)
@given(sets, st.integers(1, 14))
def test_lazy_greedy_picks_what_plain_greedy_picks_with_ties_to_the_lowest(frames, k):
    order, gains = lazy_greedy(arrays(frames), 26, k)
    assert (order, sum(gains)) == plain_greedy(frames, k)
    assert covered_by(arrays(frames), 26, order) == sum(gains)


def test_what_was_chosen_before_counts_as_covered_and_is_not_picked_again():
    frames = arrays([{0, 1, 2}, {0, 1}, {2, 3}])
    assert lazy_greedy(frames, 4, 3, chosen=[0]) == ([2], [1])


def test_the_reference_tie_cases(golden_dir):
    for case in json.loads((golden_dir / "sampling" / "expected.json").read_text())["pure_set_cases"]:
        keys = [pack_cells(np.array(cells, np.int64).reshape(-1, 3)) for cells in case["sets"]]
        voxels, count = dense_ids(keys)
        assert lazy_greedy(voxels, count, case["K"])[0] == case["greedy_order"], case["name"]


def test_dense_ids_number_equal_keys_equally():
    voxels, count = dense_ids([np.array([70, 10]), np.array([], np.int64), np.array([10, 90])])
    assert [v.tolist() for v in voxels] == [[1, 0], [], [0, 2]]
    assert count == 3
    assert dense_ids([]) == ([], 0)


@pytest.mark.parametrize(
    ("chosen", "candidates", "k", "picks"),
    [
        ([0], [1, 2, 3, 4], 2, [4, 2]),
        ([2], [0, 1, 3, 4], 2, [4, 0]),
        ([], [1, 2, 4], 2, [1, 4]),
        ([0, 4], [1, 3], 5, [3, 1]),
        ([0], [], 3, []),
        ([0], [1], 0, []),
    ],
)
def test_filling_in_time_takes_the_farthest_with_ties_to_the_lowest(chosen, candidates, k, picks):
    stamps = [10**18 + s for s in (0, 10, 20, 30, 45)]
    assert farthest_in_time(stamps, chosen, candidates, k) == picks


def test_the_frames_with_the_largest_gains_tell_most_and_stay_in_their_order():
    assert largest_gains((3, 90, 40, 0, 41), 3) == [1, 2, 4]
    assert largest_gains((5, 5, 5), 2) == [0, 1]


@pytest.mark.parametrize(
    ("count", "expected"), [(2, [2, 6]), (4, [0, 2, 4, 6]), (8, list(range(8))), (9, list(range(8)))]
)
def test_frames_without_gains_are_spread_evenly(count, expected):
    chosen = largest_gains((0,) * 8, count)
    assert len(set(chosen)) == min(count, 8)
    assert chosen == expected
