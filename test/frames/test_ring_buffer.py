import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.ring_buffer import RingBuffer


def frame(stamp_ns: int, height: int = 4, width: int = 6, depth: bool = False) -> Frame:
    depth_m = np.ones((height, width), np.float32) if depth else None
    return Frame(stamp_ns, np.zeros((height, width, 3), np.uint8), depth_m=depth_m)


def stamps(frames: list[Frame]) -> list[int]:
    return [f.stamp_ns for f in frames]


def test_the_oldest_frames_leave_first_when_the_ring_is_full():
    ring = RingBuffer(3, 10**6)
    left = [stamps(ring.push(frame(s))) for s in range(1, 6)]
    assert left == [[], [], [], [1], [2]]
    assert stamps(ring.frames()) == [3, 4, 5]


def test_bytes_are_bounded_with_depth_counted():
    ring = RingBuffer(100, 2 * (72 + 96))
    for s in range(1, 8):
        ring.push(frame(s, depth=True))
    assert len(ring) == 2
    assert ring.nbytes == 2 * (72 + 96)


def test_one_large_frame_pushes_out_several_small_ones():
    ring = RingBuffer(100, 300)
    for s in range(1, 5):
        ring.push(frame(s))
    assert stamps(ring.push(frame(9, 8, 10))) == [1, 2, 3, 4]


def test_a_frame_larger_than_the_ring_is_refused():
    ring = RingBuffer(4, 71)
    with pytest.raises(FrameRejectedError, match="capacity in bytes") as caught:
        ring.push(frame(1))
    assert caught.value.cause == "size"
    with pytest.raises(FrameRejectedError):
        ring.lease(4, 6)


@pytest.mark.parametrize("stamp_ns", [4, 5])
def test_a_stamp_that_does_not_grow_is_refused(stamp_ns):
    ring = RingBuffer(4, 1000)
    ring.push(frame(5))
    with pytest.raises(FrameRejectedError, match="not later") as caught:
        ring.push(frame(stamp_ns))
    assert caught.value.cause == "stamp"


def test_a_pushed_frame_is_held_without_a_copy():
    ring = RingBuffer(2, 1000)
    buffer = ring.lease(4, 6)
    ring.push(Frame(1, buffer))
    assert ring.frames()[0].rgb is buffer


def test_leases_never_run_out_while_nobody_else_holds_frames():
    ring = RingBuffer(3, 10**6, spare_slots=1)
    for s in range(1, 50):
        ring.push(Frame(s, ring.lease(4, 6)))
    assert len(ring) == 3


def test_frames_of_an_old_size_live_on_beside_the_new_pool():
    ring = RingBuffer(4, 10**6)
    old = ring.lease(4, 6)
    old[:] = 42
    ring.push(Frame(1, old))
    new = ring.lease(5, 9)
    new[:] = 7
    ring.push(Frame(2, new))
    assert [f.rgb.shape for f in ring.frames()] == [(4, 6, 3), (5, 9, 3)]
    assert (ring.frames()[0].rgb == 42).all()


def test_clear_lets_go_of_everything():
    ring = RingBuffer(4, 1000)
    ring.push(frame(5))
    ring.clear()
    assert (len(ring), ring.nbytes) == (0, 0)
    ring.push(frame(1))
    assert stamps(ring.frames()) == [1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.booleans()), max_size=40))
def test_bounds_hold_after_every_push_and_frames_are_kept_or_returned_once(sizes):
    ring = RingBuffer(5, 400)
    out: list[int] = []
    for stamp, (height, width, depth) in enumerate(sizes, start=1):
        out += stamps(ring.push(frame(stamp, height, width, depth)))
        assert len(ring) <= 5
        assert ring.nbytes == sum(f.nbytes for f in ring.frames()) <= 400
    assert out + stamps(ring.frames()) == list(range(1, len(sizes) + 1))


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0)])
def test_an_impossible_capacity_is_refused(arguments):
    with pytest.raises(ConfigurationError, match="at least 1"):
        RingBuffer(*arguments)


def test_buffers_for_kept_frames_are_as_few_as_their_bound_in_frames_or_in_bytes_allows():
    for kept, slots in ((0, 0), 3), ((4, 10**6), 7), ((400, 5 * 60 + 59), 8):
        ring = RingBuffer(2, 10**6, spare_slots=1, kept_frames=kept[0], kept_bytes=kept[1])
        held = [ring.lease(4, 5) for _ in range(slots)]
        with pytest.raises(FrameRejectedError):
            ring.lease(4, 5)
        assert len(held) == slots
