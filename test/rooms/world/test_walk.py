import numpy as np
import pytest

from spatial_mllm_ros.rooms.world.parts import ROW_CENTRE, ROW_MATRIX
from spatial_mllm_ros.rooms.world.walk import make_walk
from spatial_mllm_ros.rooms.world.world import make_world


@pytest.mark.parametrize("seed", range(70, 82))
def test_the_camera_enters_every_room_and_nothing_solid(seed):
    world = make_world(seed)
    walk = make_walk(world)
    eyes = walk.track[:, :3]
    for room in world.rooms:
        assert room.contains(eyes[:, :2]).any()
    matrix = world.table[ROW_MATRIX : ROW_MATRIX + 9].T.reshape(-1, 3, 3).astype(float)
    centre = world.table[ROW_CENTRE : ROW_CENTRE + 3].T.astype(float)
    unit = np.einsum("pij,npj->npi", matrix, eyes[::4, None] - centre[None])
    assert not (np.abs(unit) < 1).all(-1).any()


def test_motion_is_smooth_and_the_camera_upright(worlds):
    for world in worlds:
        walk = make_walk(world)
        step = np.abs(np.diff(walk.track, axis=0)) / 0.05
        assert np.hypot(step[:, 0], step[:, 1]).max() < 1.2  # m/s
        assert step[:, 3].max() < 2.6  # rad/s
        assert walk.duration_s > 4
        poses = walk.poses(np.linspace(0, walk.duration_s, 50))
        rotation = poses[:, :3, :3]
        assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-12)
        assert np.allclose(np.linalg.det(rotation), 1.0)
        assert (rotation[:, 2, 1] < -0.6).all()  # image down is scene down


def test_a_pose_looks_along_its_heading():
    walk = make_walk(make_world(5))
    at = 3.0
    row = walk.track[round(at / 0.05)]
    pose = walk.poses(np.array([at]))[0]
    assert np.allclose(pose[:3, 3], row[:3])
    assert np.arctan2(pose[1, 2], pose[0, 2]) == pytest.approx(np.angle(np.exp(1j * row[3])), abs=1e-9)
    assert np.arcsin(pose[2, 2]) == pytest.approx(row[4])


def test_walks_differ_in_height_and_way():
    heights = [make_walk(make_world(seed)).track[:, 2].mean() for seed in range(16)]
    assert max(heights) - min(heights) > 0.8
    world = make_world(5)
    assert not np.array_equal(make_walk(world, 0).track[:50], make_walk(world, 1).track[:50])
