import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.unprojection import sampled_intrinsics, to_scene, unproject_depth

CAMERA = Intrinsics(fx_px=50.0, fy_px=40.0, cx_px=7.0, cy_px=3.0, width_px=15, height_px=9)


def depth():
    return np.random.default_rng(1).uniform(0.5, 4, (9, 15)).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_points_project_back_to_their_pixels(stride):
    depth_m = depth()
    points = unproject_depth(depth_m, CAMERA, stride)
    assert points.dtype == np.float32
    pixels = points @ CAMERA.matrix().T
    v, u = np.mgrid[0:9:stride, 0:15:stride]
    np.testing.assert_allclose(pixels[..., 0] / pixels[..., 2], u, atol=1e-4)
    np.testing.assert_allclose(pixels[..., 1] / pixels[..., 2], v, atol=1e-4)
    np.testing.assert_array_equal(points[..., 2], depth_m[::stride, ::stride])


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_sampled_camera_sees_the_same_points_at_the_sampled_pixels(stride):
    sampled = sampled_intrinsics(CAMERA, stride)
    points = unproject_depth(depth(), CAMERA, stride)
    assert points.shape[:2] == (sampled.height_px, sampled.width_px)
    np.testing.assert_allclose(unproject_depth(depth()[::stride, ::stride], sampled), points, rtol=1e-5, atol=1e-6)


def test_no_depth_is_no_point():
    depth_m = depth()
    depth_m[2, 5] = np.nan
    points = unproject_depth(depth_m, CAMERA)
    assert np.isnan(points[2, 5]).all()
    assert np.isfinite(np.delete(points.reshape(-1, 3), 2 * 15 + 5, axis=0)).all()


def test_points_go_to_the_scene_by_rotation_then_translation():
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # camera axes to x forward, y left, z up
    pose[:3, 3] = [10, 20, 30]
    points = np.array([[[1, 2, 3], [4, 5, 6]]], np.float32)
    moved = to_scene(points, pose)
    assert (moved.dtype, moved.shape) == (np.float32, points.shape)
    np.testing.assert_array_equal(moved, [[[13, 19, 28], [16, 16, 25]]])


def test_intrinsics_of_another_size_are_refused():
    with pytest.raises(ConfigurationError, match=r"15x9.*12x9"):
        unproject_depth(np.ones((9, 12), np.float32), CAMERA)


@pytest.mark.parametrize("call", [lambda: unproject_depth(depth(), CAMERA, 0), lambda: sampled_intrinsics(CAMERA, 0)])
def test_a_stride_below_one_is_refused(call):
    with pytest.raises(ConfigurationError, match="pixel_stride is 0"):
        call()
