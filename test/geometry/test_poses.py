from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_ros.geometry.poses import (
    cameras_from_vggt_pose_encoding,
    inverse_pose,
    matrix_from_quaternion,
    nearest_rotation,
    quaternion_from_matrix,
    rotation_angle_rad,
)


def random_quaternions(count: int) -> np.ndarray:
    quaternion = np.random.default_rng(4).normal(size=(count, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    return np.where(quaternion[:, 3:] < 0, -quaternion, quaternion)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(matrix_from_quaternion([0, 0, half, half]) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(matrix_from_quaternion([half, 0, 0, half]) @ [0, 1, 0], [0, 0, 1], atol=1e-15)


def test_quaternions_and_matrices_go_both_ways() -> None:
    quaternion = random_quaternions(50)
    matrix = matrix_from_quaternion(quaternion)
    np.testing.assert_allclose(matrix @ np.swapaxes(matrix, 1, 2), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), 1)
    np.testing.assert_allclose(quaternion_from_matrix(matrix), quaternion, atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_are_no_special_case(axis: int) -> None:
    rotation = -np.eye(3)
    rotation[axis, axis] = 1
    quaternion = quaternion_from_matrix(rotation)
    np.testing.assert_allclose(matrix_from_quaternion(quaternion), rotation, atol=1e-12)
    assert rotation_angle_rad(rotation) == pytest.approx(np.pi)


def test_the_length_of_a_quaternion_does_not_matter_unless_it_is_zero() -> None:
    quaternion = random_quaternions(3)
    np.testing.assert_allclose(matrix_from_quaternion(-7.5 * quaternion), matrix_from_quaternion(quaternion))
    assert np.isnan(matrix_from_quaternion(np.zeros(4))).all()


def test_angles_keep_their_precision_when_small() -> None:
    for angle in (0.0, 1e-9, 0.3, 2.9):
        rotation = matrix_from_quaternion([np.sin(angle / 2) * 0.6, 0, np.sin(angle / 2) * 0.8, np.cos(angle / 2)])
        assert rotation_angle_rad(rotation) == pytest.approx(angle, abs=1e-15)


def test_the_inverse_of_a_pose_undoes_it() -> None:
    pose = np.tile(np.eye(4), (2, 5, 1, 1))
    pose[..., :3, :3] = matrix_from_quaternion(random_quaternions(10)).reshape(2, 5, 3, 3)
    pose[..., :3, 3] = np.random.default_rng(1).normal(size=(2, 5, 3))
    for given in (pose, pose[..., :3, :]):
        np.testing.assert_allclose(inverse_pose(given) @ pose, np.broadcast_to(np.eye(4), pose.shape), atol=1e-12)


def test_the_nearest_rotation_is_never_a_reflection() -> None:
    rotation = matrix_from_quaternion(random_quaternions(1)[0])
    np.testing.assert_allclose(nearest_rotation(3.7 * rotation), rotation, atol=1e-12)
    assert np.linalg.det(nearest_rotation(rotation @ np.diag([1, 1, -0.1]))) == pytest.approx(1)


def test_vggt_cameras_are_those_of_the_reference(golden_dir: Path) -> None:
    with np.load(golden_dir / "vggt_tiny" / "case_nonsquare_S4.npz") as case:
        height, width = case["images"].shape[3:]
        cameras = cameras_from_vggt_pose_encoding(case["pose_enc"], width_px=width, height_px=height)
        np.testing.assert_allclose(cameras.cam_from_world, case["extrinsic"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(cameras.intrinsics, case["intrinsic"], rtol=1e-5)


def test_vggt_fields_of_view_are_vertical_then_horizontal() -> None:
    encoding = np.array([1, 2, 3, 0, 0, 0, 1, np.pi / 2, 2 * np.arctan(2.0)])
    cameras = cameras_from_vggt_pose_encoding(encoding, width_px=80, height_px=60)
    np.testing.assert_allclose(cameras.intrinsics, [[20, 0, 40], [0, 30, 30], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(cameras.cam_from_world, np.c_[np.eye(3), [1, 2, 3]])
    assert np.isinf(cameras_from_vggt_pose_encoding(encoding * 0, width_px=80, height_px=60).intrinsics[0, 0])
