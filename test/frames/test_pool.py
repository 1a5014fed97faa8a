import gc
import threading

import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError, FrameRejectedError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.pool import SlotPool


def test_a_leased_buffer_has_the_asked_size_and_is_writeable():
    buffer = SlotPool(2, 5, 7).lease()
    assert buffer.shape == (5, 7, 3)
    assert buffer.dtype == np.uint8
    assert buffer.flags.c_contiguous
    assert buffer.flags.writeable


def test_slots_do_not_overlap():
    pool = SlotPool(3, 4, 6)
    buffers = [pool.lease() for _ in range(3)]
    for value, buffer in enumerate(buffers):
        buffer[:] = value
    assert [int(b.min()) for b in buffers] == [int(b.max()) for b in buffers] == [0, 1, 2]


def test_an_exhausted_pool_refuses_by_cause():
    pool = SlotPool(1, 4, 6)
    held = pool.lease()
    with pytest.raises(FrameRejectedError, match="held") as caught:
        pool.lease()
    assert caught.value.cause == "pool"
    assert held.shape == (4, 6, 3)


def test_a_slot_returns_when_its_frame_is_released_and_not_before():
    pool = SlotPool(1, 4, 6)
    frame = Frame(1, pool.lease())
    assert pool.free_slots == 0
    del frame
    assert pool.free_slots == 1


def test_a_view_of_a_view_keeps_the_slot_even_after_the_frame_is_gone():
    pool = SlotPool(1, 4, 6)
    frame = Frame(1, pool.lease())
    view = frame.rgb[1:3][:, ::2, 0]
    del frame
    gc.collect()
    assert pool.free_slots == 0
    del view
    assert pool.free_slots == 1


def test_a_buffer_that_never_became_a_frame_is_not_lost():
    pool = SlotPool(1, 4, 6)
    for _ in range(5):
        pool.lease()
    assert pool.free_slots == 1


def test_leasing_and_releasing_from_many_threads_loses_no_slot():
    pool = SlotPool(4, 3, 5)
    torn = []

    def work(value: int) -> None:
        for _ in range(300):
            try:
                buffer = pool.lease()
            except FrameRejectedError:
                continue
            buffer[:] = value
            if not (buffer == value).all():
                torn.append(value)
            del buffer

    threads = [threading.Thread(target=work, args=(v,)) for v in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert torn == []
    assert pool.free_slots == 4


@pytest.mark.parametrize("arguments", [(0, 4, 4), (1, 0, 4), (1, 4, 0)])
def test_an_impossible_pool_is_refused(arguments):
    with pytest.raises(ConfigurationError, match="at least 1"):
        SlotPool(*arguments)


def test_warmed_slots_are_leased_first_and_none_is_lost_or_given_twice():
    pool = SlotPool(6, 4, 6)
    pool.warm(2)
    assert pool.free_slots == 6
    held = [pool.lease() for _ in range(6)]
    addresses = {array.ctypes.data for array in held}
    assert len(addresses) == 6
    warmed = sorted(addresses)[:2]  # warming starts at the beginning of the block
    assert sorted(array.ctypes.data for array in held[:2]) == warmed
    pool.warm(6)  # nothing is left to warm
    assert pool.free_slots == 0


def test_slots_that_are_free_and_touched_count_as_warm_so_that_no_more_memory_is_taken_than_needed():
    pool = SlotPool(6, 4, 6)
    addresses = set()
    for _ in range(20):
        pool.warm(2)
        first, second = pool.lease(), pool.lease()
        addresses |= {first.ctypes.data, second.ctypes.data}
        del first, second
    assert len(addresses) == 2


def test_warming_leaves_what_is_held_alone():
    pool = SlotPool(3, 4, 6)
    held = pool.lease()
    held[:] = 7
    pool.warm(3)
    pool.warm(3)
    assert (held == 7).all()
    assert pool.free_slots == 2
