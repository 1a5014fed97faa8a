import numpy as np
import pytest

from spatial_mllm_ros.benchmarks.simulated_vggt import SimulatedNoise, SimulatedVggt, TrueView
from spatial_mllm_ros.encoders.base import Anchor, ScaleSource
from spatial_mllm_ros.errors import ConfigurationError, EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import inverse_pose, matrix_from_quaternion, rotation_angle_rad

CAMERA = Intrinsics(30.0, 31.0, 19.0, 14.5, 40, 30)
EXACT = SimulatedNoise(0.0, 0.0, 0.0, 0.0, 0.0)


def views(count):
    """A camera that turns and walks before two slanted walls."""
    found = {}
    v, u = np.mgrid[:30, :40]
    for i in range(count):
        pose = np.eye(4)
        pose[:3, :3] = matrix_from_quaternion([0.02, np.sin(0.05 * i), 0.1, np.cos(0.05 * i)])
        pose[:3, 3] = [0.1 * i, 0.02 * i, -0.05 * i]
        depth = 2.0 + 0.03 * np.abs(u - 15 - i) + 0.02 * v
        found[1 + i] = TrueView(depth.astype(np.float32), CAMERA, pose)
    return found


def frame(stamp_ns):
    return Frame(stamp_ns, np.zeros((3, 4, 3), np.uint8))


def two_windows(noise, seed=0):
    encoder = SimulatedVggt(views(6), noise, window_size=4, anchor_count=2, seed=seed)
    first = [frame(s) for s in (1, 2, 3, 4)]
    known = encoder.encode(first, [])
    anchors = [Anchor(f, g) for f, g in zip(first[2:], known[2:], strict=True)]
    return [*known, *encoder.encode([frame(5), frame(6)], anchors)]


def relative(poses, i, j):
    return inverse_pose(poses[i]) @ poses[j]


def test_without_noise_the_scene_is_the_true_one_but_for_its_frame_and_unit():
    found = [g.scene_from_cam for g in two_windows(EXACT)]
    truth = [view.scene_from_cam for view in views(6).values()]
    scale = np.linalg.norm(relative(truth, 0, 1)[:3, 3]) / np.linalg.norm(relative(found, 0, 1)[:3, 3])
    for i, j in ((0, 3), (2, 5), (0, 5)):  # within a window, and across the border
        mine, true = relative(found, i, j), relative(truth, i, j)
        np.testing.assert_allclose(mine[:3, :3], true[:3, :3], atol=1e-6)
        np.testing.assert_allclose(scale * mine[:3, 3], true[:3, 3], atol=1e-5)
    assert {g.scale_source for g in two_windows(EXACT)} == {ScaleSource.MODEL}


def test_noise_is_of_the_stated_size_and_repeatable():
    truth = [view.scene_from_cam for view in views(6).values()]
    turned = []
    for seed in range(20):
        found = [g.scene_from_cam for g in two_windows(SimulatedNoise(0.5, 0.0, 0.0, 0.0, 0.0), seed)]
        turned += [rotation_angle_rad(relative(truth, 0, j)[:3, :3].T @ relative(found, 0, j)[:3, :3]) for j in (1, 2)]
    # two cameras, three axes each: sqrt(6) sigma
    assert np.rad2deg(np.sqrt(np.mean(np.square(turned)))) == pytest.approx(0.5 * np.sqrt(6), rel=0.25)
    again, other = two_windows(SimulatedNoise(), 3), two_windows(SimulatedNoise(), 4)
    assert again[5].points_scene.tobytes() == two_windows(SimulatedNoise(), 3)[5].points_scene.tobytes()
    assert again[5].points_scene.tobytes() != other[5].points_scene.tobytes()


def test_a_frame_without_a_true_view_is_an_error():
    with pytest.raises(EncoderError, match="no true view"):
        SimulatedVggt(views(2), EXACT).encode([frame(9)], [])


def test_noise_below_zero_is_refused():
    with pytest.raises(ConfigurationError, match=r"SimulatedNoise\.depth "):
        SimulatedNoise(depth=-0.1)
