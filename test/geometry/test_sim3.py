import numpy as np
import pytest

from spatial_mllm_ros.geometry.poses import matrix_from_quaternion, rotation_angle_rad
from spatial_mllm_ros.geometry.sim3 import (
    DegenerateAlignmentError,
    Sim3,
    fit_sim3,
    fit_sim3_robust,
    fit_sim3_to_poses,
)

TRUTH = Sim3(0.37, matrix_from_quaternion([0.3, -0.5, 0.2, 0.7]), np.array([1.5, -0.2, 4.0]))


def cloud(count: int = 400, extent: tuple[float, float, float] = (3.0, 1.0, 0.4)) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, size=(count, 3)) * extent + [0.5, 0.0, 2.0]


def poses(centres: np.ndarray) -> np.ndarray:
    result = np.tile(np.eye(4), (len(centres), 1, 1))
    quaternions = np.random.default_rng(1).normal(size=(len(centres), 4))
    result[:, :3, :3] = matrix_from_quaternion(quaternions)
    result[:, :3, 3] = centres
    return result


def assert_same(found: Sim3, expected: Sim3, tolerance: float = 1e-9) -> None:
    assert found.scale == pytest.approx(expected.scale, rel=tolerance)
    assert rotation_angle_rad(found.rotation.T @ expected.rotation) < max(tolerance, 1e-7)
    np.testing.assert_allclose(found.translation, expected.translation, atol=10 * tolerance)


def test_an_exact_similarity_is_found() -> None:
    assert_same(fit_sim3(cloud(), TRUTH.apply(cloud())), TRUTH)


def test_points_of_a_plane_are_enough_and_never_mirrored() -> None:
    plane = cloud(extent=(3.0, 1.0, 0.0))
    assert_same(fit_sim3(plane, TRUTH.apply(plane)), TRUTH)
    mirrored = cloud() * [1, 1, -1]
    assert np.linalg.det(fit_sim3(cloud(), mirrored).rotation) == pytest.approx(1)


def test_pairs_without_weight_do_not_count() -> None:
    target = TRUTH.apply(cloud())
    target[::3] += 50
    weights = np.ones(len(target))
    weights[::3] = 0
    assert_same(fit_sim3(cloud(), target, weights), TRUTH)


def test_a_known_scale_is_kept() -> None:
    noisy = TRUTH.apply(cloud()) + np.random.default_rng(3).normal(scale=0.01, size=(400, 3))
    found = fit_sim3(cloud(), noisy, scale=0.37)
    assert found.scale == 0.37
    assert_same(found, TRUTH, 0.01)


def test_one_sided_outliers_do_not_pull_the_robust_fit() -> None:
    random = np.random.default_rng(2)
    target = TRUTH.apply(cloud()) + random.normal(scale=0.002, size=(400, 3))
    wrong = random.permutation(400)[:180]
    target[wrong] += random.uniform(0.5, 30.0, size=(180, 3))
    fit = fit_sim3_robust(cloud(), target, inlier_distance=0.02)
    assert_same(fit.sim3, TRUTH, 2e-3)
    assert fit.inlier_fraction == pytest.approx(0.55, abs=0.01)
    plain = fit_sim3(cloud(), target)
    assert np.linalg.norm(plain.translation - TRUTH.translation) > 1


def test_the_robust_fit_is_exact_on_exact_points_and_repeatable() -> None:
    first, again = (fit_sim3_robust(cloud(), TRUTH.apply(cloud()), inlier_distance=0.01) for _ in range(2))
    assert_same(first.sim3, TRUTH)
    assert first.inlier_fraction == 1
    assert first.sim3.scale == again.sim3.scale
    assert first.sim3.rotation.tobytes() == again.sim3.rotation.tobytes()


@pytest.mark.parametrize(
    ("points", "weights"),
    [
        (np.arange(30.0)[:, None] * [1, 2, 3], None),
        (np.tile([1.0, 2.0, 3.0], (30, 1)), None),
        (cloud(2), None),
        (cloud(30), np.zeros(30)),
        (np.zeros((0, 3)), None),
    ],
)
def test_points_that_leave_the_rotation_open_are_refused(points: np.ndarray, weights: np.ndarray | None) -> None:
    with pytest.raises(DegenerateAlignmentError):
        fit_sim3(points, TRUTH.apply(points), weights)
    with pytest.raises(DegenerateAlignmentError):
        fit_sim3_robust(points, TRUTH.apply(points), weights, inlier_distance=0.1)


def test_a_straight_trajectory_with_orientations_is_enough() -> None:
    a_from_cam = poses(np.arange(4.0)[:, None] * [0.3, 0.1, -0.2])
    assert_same(fit_sim3_to_poses(TRUTH.apply_to_pose(a_from_cam), a_from_cam), TRUTH)


def test_one_pose_is_enough_if_the_scale_is_known() -> None:
    a_from_cam = poses(np.array([[0.4, 1.0, -2.0]]))
    assert_same(fit_sim3_to_poses(TRUTH.apply_to_pose(a_from_cam), a_from_cam, scale=0.37), TRUTH)
    with pytest.raises(DegenerateAlignmentError, match="scale"):
        fit_sim3_to_poses(TRUTH.apply_to_pose(a_from_cam), a_from_cam)


def test_opposite_motion_has_no_scale() -> None:
    a_from_cam = poses(cloud(4))
    b_from_cam = a_from_cam.copy()
    b_from_cam[:, :3, 3] *= -1
    with pytest.raises(DegenerateAlignmentError, match="scale"):
        fit_sim3_to_poses(b_from_cam, a_from_cam)


def test_poses_stay_rigid_and_move_with_the_points() -> None:
    moved = TRUTH.apply_to_pose(poses(cloud(5)))
    np.testing.assert_allclose(np.linalg.det(moved[:, :3, :3]), 1)
    np.testing.assert_allclose(moved[:, :3, 3], TRUTH.apply(cloud(5)))
