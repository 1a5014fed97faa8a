from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.scene.voxel_counts import VoxelCounts


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sets(st.integers(0, 60), min_size=1), max_size=30), st.randoms(use_true_random=False))
def test_counts_agree_with_a_plain_counter_under_adding_and_removing(frames, random):
    table, plain, held = VoxelCounts(), Counter(), []
    for frame in frames:
        keys = np.array(sorted(frame), np.int64) << 40  # keys that differ in their high bits only
        table.add(keys)
        plain.update(keys.tolist())
        held.append(keys)
        if random.random() < 0.4:
            gone = held.pop(random.randrange(len(held)))
            table.remove(table.slots(gone))
            plain.subtract(gone.tolist())
        expected = {key: count for key, count in plain.items() if count > 0}
        keys, counts = table.living()
        assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == expected
        assert len(table) == len(expected)


def test_slots_are_one_per_voxel_and_hold_until_the_generation_changes():
    table = VoxelCounts()
    first = np.arange(1000, dtype=np.int64) * 7919
    slots = table.add(first)
    generation = table.generation
    table.add(first[500:] + 1)
    assert len(np.unique(slots)) == len(first)
    assert table.generation == generation
    np.testing.assert_array_equal(table.slots(first), slots)


def test_the_table_grows_with_what_is_held_and_keeps_every_count():
    table = VoxelCounts()
    keys = np.random.default_rng(0).permutation(50_000).astype(np.int64)
    for part in np.split(keys, 50):
        table.add(part)
    table.add(keys[:10])
    assert table.generation > 0
    assert table.counts(table.slots(keys[:12])).tolist() == [2] * 10 + [1] * 2


def test_the_table_does_not_grow_with_what_was_ever_seen():
    table = VoxelCounts()
    sizes = []
    for round_ in range(400):
        slots = table.add(np.arange(500, dtype=np.int64) + 500 * round_)
        sizes.append(table.nbytes)
        table.remove(slots)
    assert len(table) == 0
    assert max(sizes) == sizes[0]
