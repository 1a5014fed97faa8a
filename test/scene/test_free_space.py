import numpy as np
import pytest

from spatial_mllm_ros.encoders.base import FrameGeometry, ScaleSource
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import matrix_from_quaternion
from spatial_mllm_ros.geometry.unprojection import to_scene, unproject_depth
from spatial_mllm_ros.scene.free_space import seen_through
from spatial_mllm_ros.scene.voxels import coarsen, voxel_keys

FINE, LEVEL = 0.05, 2  # voxels of 0.2 m
CAMERA = Intrinsics(70.0, 72.0, 47.0, 35.5, 98, 70)
POSE = np.eye(4)
POSE[:3, :3] = matrix_from_quaternion([0.1, 0.4, -0.2, 0.9])
POSE[:3, 3] = [1.3, -0.7, 2.1]


def view(depth):
    points = to_scene(unproject_depth(depth.astype(np.float32), CAMERA), POSE)
    return FrameGeometry(points, np.isfinite(depth).astype(np.float32), POSE, CAMERA, ScaleSource.DEPTH)


def block(z, x=0.0, y=0.0, half=0.3, thick=1.0):
    """Voxels of a block (a square where ``thick`` is 0) in front of the camera, in camera axes, metres."""
    points = np.random.default_rng(0).uniform(-half, half, (4000, 3)) * [1, 1, thick] + [x, y, z]
    return coarsen(voxel_keys((points @ POSE[:3, :3].T + POSE[:3, 3]).astype(np.float32), FINE), LEVEL)


def gone(depth, keys):
    """The share of ``keys`` that a frame with this depth looks through."""
    return len(seen_through(view(depth), FINE, LEVEL, lambda k: np.intersect1d(k, keys))) / len(keys)


WALL = np.full((70, 98), 4.0)


@pytest.mark.parametrize(("where", "x", "y"), [(2.0, 0.0, 0.0), (2.5, 0.6, 0.4), (1.5, -0.4, 0.3)])
def test_what_stood_before_the_wall_and_is_no_longer_there_is_seen_through(where, x, y):
    assert gone(WALL, block(where, x, y)) > 0.5


def test_the_wall_itself_and_what_is_behind_it_stay():
    assert gone(WALL, block(4.0, thick=0.0)) == 0
    assert gone(WALL, block(5.0)) == 0


def test_a_thing_that_is_still_there_stays_and_so_does_what_it_hides():
    depth = WALL.copy()
    depth[20:52, 30:66] = 2.0
    assert gone(depth, block(2.0, half=0.2, thick=0.0)) == 0
    assert gone(depth, block(3.0, half=0.2)) == 0


def test_nothing_is_concluded_where_there_is_no_depth():
    assert gone(np.full((70, 98), np.nan), block(2.0)) == 0
    depth = WALL.copy()
    depth[34, 46] = np.nan  # one pixel in the middle of what it falls on is enough
    assert gone(depth, block(2.0, half=0.05)) == 0


def test_what_is_beside_the_picture_or_behind_the_camera_stays():
    assert gone(WALL, block(2.0, x=4.0)) == 0
    assert gone(WALL, block(-2.0)) == 0
