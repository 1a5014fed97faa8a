import numpy as np
import pytest

from spatial_mllm_ros.scene.coverage import CoverageIndex
from spatial_mllm_ros.scene.sole_voxels import SoleVoxels
from spatial_mllm_ros.scene.voxels import coarsen, pack_cells


def plain_alone(frames):
    """The same by sets: frame -> voxels that no other one sees."""
    return {i: len(own - set().union(*(s for j, s in frames.items() if j != i))) for i, own in frames.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_counts_and_owners_are_those_of_plain_sets_whatever_comes_and_goes(seed):
    random = np.random.default_rng(seed)
    sole, frames = SoleVoxels(60), {}
    for step in range(200):
        if frames and random.random() < 0.45:
            frame_id = int(random.choice(list(frames)))
            sole.remove(frame_id, np.array(sorted(frames.pop(frame_id))))
        else:
            slots = random.choice(60, random.integers(1, 15), replace=False)
            frames[10**12 + step] = set(slots.tolist())
            sole.add(10**12 + step, slots)
        assert sole.alone == plain_alone(frames)
        seen = [sum(slot in own for own in frames.values()) for slot in range(60)]
        assert sole.counts(np.arange(60)).tolist() == seen
        owners = {i: n for i, n in plain_alone(frames).items() if n}
        assert sole.owners(np.arange(60)) == owners


def test_more_frames_than_16_bits_can_number_are_counted_right():
    sole, first, last = SoleVoxels(3), np.array([0, 1]), np.array([1, 2])
    sole.add(10**12, first)
    for i in range(1 << 16):
        sole.add(i, last)
    assert sole.counts(np.arange(3)).tolist() == [1, (1 << 16) + 1, 1 << 16]
    assert sole.owners(np.arange(3)) == {10**12: 1}
    for i in range((1 << 16) - 1):
        sole.remove(i, last)
    assert sole.owners(np.arange(3)) == {10**12: 1, (1 << 16) - 1: 1}


def test_the_index_knows_what_keyframes_see_alone_also_after_growth_clearing_and_another_level():
    random = np.random.default_rng(3)
    index, keyframes, cleared = CoverageIndex(0.1), [], 0

    def assert_right():
        slots = {i: set(index.slots(i).tolist()) for i in keyframes}
        assert dict(index.seen_alone) == plain_alone(slots)
        for i in keyframes:
            others = [sum(slot in own for own in slots.values()) for slot in index.slots(i).tolist()]
            assert index.keyframe_counts(i).tolist() == others

    for i in range(1, 60):
        centre = np.array([i // 2, i % 3, 0]) * 12
        index.add(i, np.unique(pack_cells(random.integers(0, 60, (250, 3)) + centre)))
        if i % 4 == 0:
            looked_at = coarsen(np.unique(pack_cells(random.integers(0, 200, (300, 3)))), index.level)
            cleared += len(index.see_through(looked_at, 1))
        if i % 3:
            index.keep(i)
            keyframes.append(i)
        if i % 5 == 0:
            index.remove(keyframes.pop(0))
        index.follow_extent()
        assert_right()
    assert index.level > 0
    assert index.slot_count > 1 << 12
    assert cleared > 0
