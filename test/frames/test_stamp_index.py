from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.frames.stamp_index import StampIndex, nearest_stamp


def test_the_nearest_stamp_within_the_slop_is_found():
    index = StampIndex(8)
    for stamp in (100, 140, 200):
        index.add(stamp, f"at {stamp}")
    assert index.nearest(135, 10) == "at 140"
    assert index.nearest(118, 20) == "at 100"
    assert index.nearest(170, 20) is None


def test_of_two_equally_near_stamps_the_earlier_one_is_taken():
    assert nearest_stamp([100, 140], 120, 20) == 0


def test_nothing_is_near_in_an_empty_sequence():
    assert nearest_stamp([], 100, 1000) is None


def test_the_oldest_leaves_a_full_index_and_a_jump_back_empties_it():
    index = StampIndex(2)
    for stamp in (100, 200, 300):
        index.add(stamp, stamp)
    assert index.nearest(100, 5) is None
    assert index.nearest(300, 5) == 300
    index.add(50, 50)
    assert index.nearest(300, 5) is None
    assert index.newest_ns == 50


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers(0, 1000), st.integers(0, 300))
def test_the_answer_is_what_a_search_over_all_stamps_finds(stamps, wanted, slop):
    index = StampIndex(100)
    for stamp in sorted(stamps):
        index.add(stamp, stamp)
    best = min(stamps, key=lambda stamp: (abs(stamp - wanted), stamp))
    assert index.nearest(wanted, slop) == (best if abs(best - wanted) <= slop else None)
    at = nearest_stamp(sorted(stamps), wanted, slop)
    assert (None if at is None else sorted(stamps)[at]) == index.nearest(wanted, slop)
