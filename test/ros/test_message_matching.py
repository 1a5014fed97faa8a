import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is not installed")

from spatial_mllm_ros.ros.message_matching import StampIndex


def test_the_nearest_stamp_within_the_slop_is_found():
    index = StampIndex(8)
    for stamp in (100, 140, 200):
        index.add(stamp, f"at {stamp}")
    assert index.nearest(135, 10) == "at 140"
    assert index.nearest(118, 20) == "at 100"
    assert index.nearest(170, 20) is None


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
def test_the_answer_is_what_a_search_over_everything_held_finds(stamps, wanted, slop):
    index = StampIndex(100)
    for stamp in sorted(stamps):
        index.add(stamp, stamp)
    best = min(abs(stamp - wanted) for stamp in stamps)
    found = index.nearest(wanted, slop)
    assert (found is None) == (best > slop)
    if found is not None:
        assert abs(found - wanted) == best
