"""Windows whose anchors have changed in part: people walk through the picture, depth flies at edges."""

import numpy as np
import pytest

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.encoders.window_alignment import WindowGeometry, align_window
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import matrix_from_quaternion, rotation_angle_rad
from spatial_mllm_ros.geometry.sim3 import Sim3, fit_sim3

H, W = 42, 56
SCENE_FROM_WINDOW = Sim3(2.7, matrix_from_quaternion([0.3, -0.2, 0.5, 0.8]), np.array([1.0, -2.0, 0.5]))


@pytest.mark.parametrize("kind", ["anywhere", "all to one side"])
def test_a_third_of_wrong_correspondences_does_not_move_a_window(kind):
    random = np.random.default_rng(5)
    v, u = np.mgrid[:H, :W]
    window_points = np.stack([u / 20 - 1.4, v / 25 - 0.8, 2 + 0.3 * np.sin(u / 7) + 0.2 * np.cos(v / 5)], axis=-1)
    points = SCENE_FROM_WINDOW.apply(window_points + random.normal(0, 0.004, window_points.shape))
    wrong = random.random((H, W)) < 0.3
    off = random.uniform(-4, 4, (H, W, 3)) if kind == "anywhere" else random.uniform(0.5, 6, (H, W, 3))
    points = np.where(wrong[..., None], points + off, points).astype(np.float32)
    ones, pose = np.ones((H, W), np.float32), SCENE_FROM_WINDOW.apply_to_pose(np.eye(4))
    camera = Intrinsics(40.0, 40.0, 28.0, 21.0, W, H)
    frame = Frame(1, np.zeros((H, W, 3), np.uint8))
    anchor = Anchor(frame, FrameGeometry(points, ones, pose, camera, ScaleSource.MODEL))
    window = WindowGeometry(
        window_points[None, ..., 2].astype(np.float32),
        ones[None],
        window_points[None].astype(np.float32),
        np.eye(4)[None],
    )
    found = align_window(window, [frame], [anchor]).scene_from_window
    assert found.scale == pytest.approx(SCENE_FROM_WINDOW.scale, rel=2e-3)
    assert np.rad2deg(rotation_angle_rad(found.rotation.T @ SCENE_FROM_WINDOW.rotation)) < 0.1
    np.testing.assert_allclose(found.apply([0, 0, 2]), SCENE_FROM_WINDOW.apply([0, 0, 2]), atol=0.01)
    plain = fit_sim3(window_points.reshape(-1, 3), points.reshape(-1, 3))
    assert np.rad2deg(rotation_angle_rad(plain.rotation.T @ SCENE_FROM_WINDOW.rotation)) > 0.3
