import numpy as np
import pytest

from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.errors import ConfigurationError, EncoderError
from spatial_mllm_ros.frames.frame import Frame


def frame(seconds, pose=None):
    return Frame(round(seconds * 1e9), np.zeros((3, 5, 3), np.uint8), scene_from_cam=pose)


def test_equal_input_gives_equal_output_in_any_windowing():
    frames = [frame(t) for t in (1, 2, 3.5, 1_763_600_000)]
    together = FakeGeometryEncoder(window_size=4).encode(frames, [])
    for one, geometry in zip(frames, together, strict=True):
        (alone,) = FakeGeometryEncoder(window_size=4).encode([one], [])
        np.testing.assert_array_equal(alone.points_scene, geometry.points_scene)
        np.testing.assert_array_equal(alone.scene_from_cam, geometry.scene_from_cam)


def test_points_lie_on_the_walls_and_project_to_their_pixels():
    (geometry,) = FakeGeometryEncoder(6, 10).encode([frame(4.2)], [])
    pose, points = geometry.scene_from_cam, geometry.points_scene.reshape(-1, 3)
    walls = np.abs(np.concatenate([points - [-2.0, -1.4, -1.5], points - [3.0, 1.1, 2.7]], axis=1)).min(axis=1)
    assert walls.max() < 1e-5
    cam = (points - pose[:3, 3]) @ pose[:3, :3]
    pixels = cam @ geometry.intrinsics.matrix().T
    v, u = np.mgrid[:6, :10]
    np.testing.assert_allclose(pixels[:, 0] / pixels[:, 2], u.reshape(-1), atol=1e-3)
    np.testing.assert_allclose(pixels[:, 1] / pixels[:, 2], v.reshape(-1), atol=1e-3)
    assert geometry.confidence.min() >= 1


def test_frames_at_other_times_see_other_walls():
    first, second = FakeGeometryEncoder().encode([frame(1), frame(6)], [])
    assert np.abs(first.points_scene - second.points_scene).max() > 1


def test_a_known_pose_is_kept_and_the_scale_is_as_announced():
    pose = np.eye(4)
    pose[:3, 3] = [0.5, 0.2, -0.3]
    (geometry,) = FakeGeometryEncoder(scale_source=ScaleSource.TF).encode([frame(1, pose)], [])
    np.testing.assert_array_equal(geometry.scene_from_cam, pose)
    assert geometry.scale_source is ScaleSource.TF


@pytest.mark.parametrize("count", [0, 5])
def test_windows_of_another_size_are_refused(count):
    with pytest.raises(EncoderError, match="1 to 4 frames"):
        FakeGeometryEncoder(window_size=4).encode([frame(t + 1) for t in range(count)], [])


@pytest.mark.parametrize("values", [{"height": 0}, {"window_size": 0}, {"anchor_count": -1}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigurationError):
        FakeGeometryEncoder(**values)
