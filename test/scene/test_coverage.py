import numpy as np
import pytest

from spatial_mllm_ros.scene.coverage import CoverageIndex, smallest_side
from spatial_mllm_ros.scene.voxels import coarsen, voxel_keys

RNG = np.random.default_rng(4)


def room(centre, sides, points=4000):
    return (np.array(centre) + (RNG.random((points, 3)) - 0.5) * np.array(sides)).astype(np.float32)


def filled(frames, voxel_size=0.1):
    index = CoverageIndex(voxel_size)
    for frame_id, points in frames.items():
        index.add(frame_id, voxel_keys(points, voxel_size))
    return index


FRAMES = {5: room((0, 0, 0), (3, 2, 4)), 9: room((1, 0.5, 0), (3, 2, 4)), 2: room((9, -3, 1), (2, 2, 2))}


def test_totals_and_unique_voxels_are_those_of_plain_sets():
    index = filled(FRAMES)
    plain = {i: set(voxel_keys(p, 0.1).tolist()) for i, p in FRAMES.items()}
    assert index.total_voxels == len(set.union(*plain.values()))
    for i in FRAMES:
        others = set.union(*(s for j, s in plain.items() if j != i))
        assert int((index.frame_counts(i) == 1).sum()) == len(plain[i] - others)
    assert len(np.union1d(index.slots(5), index.slots(9))) == len(plain[5] | plain[9])


def test_removing_a_frame_is_as_if_it_had_never_been_there():
    index = filled(FRAMES)
    index.remove(9)
    never = filled({5: FRAMES[5], 2: FRAMES[2]})
    assert 9 not in index
    assert index.total_voxels == never.total_voxels
    assert [int((index.frame_counts(i) == 1).sum()) for i in (5, 2)] == [
        int((never.frame_counts(i) == 1).sum()) for i in (5, 2)
    ]


def test_the_grid_follows_the_extent_and_keeps_every_figure_right():
    index = filled({1: room((0, 0, 0), (3, 2, 4))}, voxel_size=0.02)
    assert index.follow_extent()
    assert index.voxel_size == pytest.approx(0.08)  # 2 m / 20 is 0.1 m; levels are powers of two
    for i in range(2, 9):
        index.add(i, voxel_keys(room((i * 4, 0, i), (9, 9, 9)), 0.02))
        index.follow_extent()
    assert index.voxel_size == pytest.approx(0.32)  # 9 m / 20 is 0.45 m
    plain = set(np.concatenate([coarsen(index.fine_keys(i), index.level) for i in range(1, 9)]).tolist())
    assert index.total_voxels == len(plain)


def test_a_small_change_of_extent_does_not_change_the_grid_back_and_forth():
    index = filled({1: room((0, 0, 0), (3.3, 3.3, 3.3))}, voxel_size=0.02)
    index.follow_extent()
    level = index.level
    for i, side in enumerate([3.6, 3.4, 3.7, 3.3, 3.6], start=2):
        index.add(i, voxel_keys(room((0, 0, 0), (side, side, side)), 0.02))
        assert not index.follow_extent()
    assert index.level == level


def test_stray_voxels_do_not_coarsen_the_grid():
    points = np.concatenate([room((0, 0, 0), (3, 2, 4)), room((0, 0, 0), (400, 400, 400), 20)])
    clean, strayed = filled({1: points[:-20]}, 0.02), filled({1: points}, 0.02)
    clean.follow_extent()
    strayed.follow_extent()
    assert strayed.level == clean.level


def test_slots_are_common_to_all_frames_also_after_the_table_has_grown():
    index = CoverageIndex(0.05)
    for i in range(30):
        index.add(i, voxel_keys(room((i, 0, 0), (3, 2, 4)), 0.05))
    seen = np.zeros(index.slot_count, int)
    for i in range(30):
        seen[index.slots(i)] += 1
    assert np.count_nonzero(seen) == index.total_voxels
    for i in range(30):
        assert index.frame_counts(i).tolist() == seen[index.slots(i)].tolist()


def test_an_empty_index_has_nothing():
    index = CoverageIndex(0.1)
    assert index.total_voxels == 0
    assert not index.follow_extent()


@pytest.mark.parametrize(
    ("sides", "smallest"), [((3, 2, 0.04), 2), ((400, 3, 2.5), 2.5), ((50, 40, 3), 3), ((5, 0, 0), 5), ((0, 0, 0), 0)]
)
def test_flat_sides_do_not_count_and_long_ones_do_not_make_others_flat(sides, smallest):
    assert smallest_side(np.array(sides, float)) == smallest


# Seeing through


def test_a_voxel_that_enough_frames_see_through_is_cleared_until_it_is_seen_again():
    index = filled(FRAMES)
    again = voxel_keys(np.float32([[0.5, 0.5, 0.5]]), 0.1)
    index.add(30, again)
    cleared = coarsen(index.fine_keys(30), index.level)
    holders = {i for i in (9, 5, 2, 30) if np.isin(cleared, coarsen(index.fine_keys(i), index.level)).any()}
    before, plain = index.total_voxels, {i: set(coarsen(index.fine_keys(i), index.level)) for i in (9, 5, 2, 30)}
    assert index.see_through(cleared, 2) == []
    assert index.total_voxels == before
    assert set(index.see_through(cleared, 2)) == holders
    assert index.total_voxels == before - 1
    assert index.contradicted_share(30) == 1.0
    for i in (9, 5, 2, 30):
        left = plain[i] - set(cleared.tolist())
        assert set(coarsen(index.fine_keys(i), index.level)) == left
        assert len(index.slots(i)) == len(left)
    index.add(31, again)
    assert index.total_voxels == before
    assert index.contradicted_share(31) == 0.0


def test_seeing_a_surface_takes_earlier_doubts_back():
    index = filled(FRAMES)
    keys = coarsen(index.fine_keys(5), index.level)[:1]
    index.see_through(keys, 2)
    index.add(40, index.fine_keys(5))
    assert index.see_through(keys, 2) == []
    assert index.see_through(keys, 2) != []


def test_voxels_that_no_frame_sees_cannot_be_cleared():
    index = filled(FRAMES)
    far = voxel_keys(np.float32([[900.0, 900.0, 900.0]]), 1.0)
    assert len(index.occupied_among(coarsen(far, index.level))) == 0
    assert index.see_through(coarsen(far, index.level), 1) == []
