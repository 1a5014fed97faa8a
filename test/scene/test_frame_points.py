import numpy as np
import pytest

from spatial_mllm_ros.encoders.base import FrameGeometry, ScaleSource
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.scene.frame_points import relative_voxel_size, window_points


def geometry(points, confidence=None):
    height, width = points.shape[:2]
    confidence = np.ones((height, width), np.float32) if confidence is None else confidence
    pose = np.eye(4)
    return FrameGeometry(points, confidence, pose, Intrinsics(9, 9, 4, 3, width, height), ScaleSource.MODEL)


def grid(height=6, width=10, z=2.0):
    v, u = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([u / 5, v / 5, np.full_like(u, z)], axis=-1)


def test_points_without_value_or_confidence_are_left_out():
    points, confidence = grid(), np.ones((6, 10), np.float32)
    points[0, 0] = np.nan
    points[1, 1, 2] = np.inf
    confidence[2, 2], confidence[3, 3], confidence[4, 4] = 0, np.nan, np.inf
    (kept,) = window_points([geometry(points, confidence)], 0, 1000)
    assert len(kept) == 55
    assert np.isfinite(kept).all()


def test_the_confidence_threshold_is_common_to_the_window():
    sure, unsure = geometry(grid(), np.full((6, 10), 3, np.float32)), geometry(grid(), np.full((6, 10), 1, np.float32))
    kept = window_points([unsure, sure], 60, 1000)
    assert [len(k) for k in kept] == [0, 60]


def test_equal_confidences_are_all_kept():
    (kept,) = window_points([geometry(grid())], 50, 1000)
    assert len(kept) == 60


def test_points_much_farther_than_nearly_all_others_are_left_out():
    points = grid()
    points[5, 9] = (0, 0, 50)
    (kept,) = window_points([geometry(points)], 0, 1000)
    assert len(kept) == 59


def test_large_maps_are_thinned_regularly_below_the_limit():
    (kept,) = window_points([geometry(grid(60, 100))], 0, 700)
    assert 350 < len(kept) <= 700
    assert np.ptp(kept[:, 0]) > 19


def test_a_window_without_points_gives_empty_arrays():
    empty = geometry(np.full((2, 3, 3), np.nan, np.float32))
    assert [p.shape for p in window_points([empty, empty], 50, 100)] == [(0, 3), (0, 3)]


@pytest.mark.parametrize(("sides", "size"), [((4, 2, 3), 2 / 160), ((4, 0.01, 3), 3 / 160), ((0, 0, 0), 1.0)])
def test_the_relative_voxel_follows_the_smallest_side_that_is_not_flat(sides, size):
    points = np.random.default_rng(0).random((5000, 3)).astype(np.float32) * np.array(sides, np.float32)
    assert relative_voxel_size(points) == pytest.approx(size, rel=0.05)
