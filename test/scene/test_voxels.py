import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scene.voxels import MAX_LEVEL, coarsen, pack_cells, unpack_cells, voxel_centres, voxel_keys

EDGE = 2**20
cell = st.tuples(*[st.integers(-EDGE, EDGE - 1)] * 3)


@given(st.lists(cell, min_size=1, max_size=20))
def test_packing_is_reversible_and_keeps_the_order_of_cells(cells):
    array = np.array(cells, np.int64)
    keys = pack_cells(array)
    np.testing.assert_array_equal(unpack_cells(keys), array)
    assert (keys >= 0).all()
    assert [cells[i] for i in np.argsort(keys, kind="stable")] == sorted(cells)


@settings(deadline=None)
@given(st.lists(cell, min_size=1, max_size=20), st.integers(0, MAX_LEVEL))
def test_coarsening_is_floor_division_of_every_coordinate_also_below_zero(cells, level):
    coarse = coarsen(np.unique(pack_cells(np.array(cells, np.int64))), level)
    expected = sorted({tuple(c // 2**level for c in one) for one in cells})
    assert [tuple(one) for one in unpack_cells(coarse, level).tolist()] == expected


def test_coarsening_in_steps_equals_coarsening_points_directly():
    points = np.random.default_rng(1).normal(0, 2, (500, 3)).astype(np.float32)
    fine = voxel_keys(points, 0.125)
    np.testing.assert_array_equal(unpack_cells(coarsen(fine, 2), 2), unpack_cells(voxel_keys(points, 0.5)))


@pytest.mark.parametrize("spread", [0.5, 40.0])  # a bitmap holds the first, the second is sorted
def test_keys_are_the_unique_cells_of_the_points(spread):
    points = np.random.default_rng(2).normal(0.3, spread, (3000, 3)).astype(np.float32) * np.array(
        [1, 2, 3], np.float32
    )
    expected = np.unique(np.floor(points * np.float32(1 / 0.1)).astype(np.int64), axis=0)
    np.testing.assert_array_equal(unpack_cells(voxel_keys(points, 0.1)), expected)


def test_points_that_are_not_finite_or_beyond_the_grid_are_left_out():
    points = np.array(
        [[np.nan, 0, 0], [0, np.inf, 0], [0, 0, -np.inf], [1e9, 0, 0], [0, -3e38, 0], [-0.05, 0.05, 0.15]], np.float32
    )
    assert unpack_cells(voxel_keys(points, 0.1)).tolist() == [[-1, 0, 1]]


def test_no_points_give_no_keys():
    assert len(voxel_keys(np.empty((0, 3), np.float32), 0.1)) == 0


def test_centres_lie_in_the_middle_of_the_voxels_of_their_level():
    keys = voxel_keys(np.array([[-0.3, 0.1, 1.3]], np.float32), 0.25)
    np.testing.assert_allclose(voxel_centres(keys, 0.25), [[-0.375, 0.125, 1.375]])
    np.testing.assert_allclose(voxel_centres(coarsen(keys, 1), 0.25, 1), [[-0.25, 0.25, 1.25]])


@pytest.mark.parametrize("level", [-1, MAX_LEVEL + 1])
def test_a_level_outside_the_grid_is_refused(level):
    with pytest.raises(ConfigurationError, match="level"):
        coarsen(np.array([1], np.int64), level)
