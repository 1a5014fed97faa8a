import numpy as np
import pytest

from spatial_mllm_ros.datasets.rgbd_folder import RgbdFolder
from spatial_mllm_ros.datasets.synthetic_clip import ROOM_SIZE_M, synthetic_clip, write_synthetic_clip
from spatial_mllm_ros.errors import ConfigurationError


@pytest.fixture(scope="module")
def clip():
    return list(synthetic_clip(frame_count=12, width_px=160, height_px=120))


def points_of(frame):
    camera = frame.intrinsics
    v, u = np.mgrid[0 : camera.height_px, 0 : camera.width_px]
    rays = np.stack([(u - camera.cx_px) / camera.fx_px, (v - camera.cy_px) / camera.fy_px, np.ones_like(u)], axis=-1)
    return (rays * frame.depth_m[..., None]) @ frame.scene_from_cam[:3, :3].T + frame.scene_from_cam[:3, 3]


def test_unprojected_depth_lies_inside_the_room_and_on_its_walls(clip):
    for frame in clip:
        points = points_of(frame)
        assert (points > -1e-3).all()
        assert (points < np.array(ROOM_SIZE_M) + 1e-3).all()
        on_wall = (np.abs(points) < 1e-3) | (np.abs(points - ROOM_SIZE_M) < 1e-3)
        assert 0.2 < on_wall.any(axis=-1).mean() < 0.98  # room and furniture are both in view


def test_what_one_frame_sees_another_sees_at_the_depth_that_geometry_says(clip):
    points = points_of(clip[0]).reshape(-1, 3)
    checked = 0
    for other in clip[1:]:
        camera = other.intrinsics
        in_cam = (points - other.scene_from_cam[:3, 3]) @ other.scene_from_cam[:3, :3]
        z = np.where(in_cam[:, 2] > 0.1, in_cam[:, 2], np.nan)
        u = np.rint(in_cam[:, 0] / z * camera.fx_px + camera.cx_px)
        v = np.rint(in_cam[:, 1] / z * camera.fy_px + camera.cy_px)
        seen = (u >= 0) & (u < camera.width_px) & (v >= 0) & (v < camera.height_px)
        there = other.depth_m[v[seen].astype(int), u[seen].astype(int)]
        nearer_or_equal = there <= z[seen] * 1.05 + 0.05  # something in between hides the point, nothing is behind it
        assert nearer_or_equal.mean() > 0.97
        checked += seen.sum()
    assert checked > 5000


def test_every_pixel_has_depth_and_every_image_texture(clip):
    for frame in clip:
        assert np.isfinite(frame.depth_m).all()
        assert frame.depth_m.min() > 0.3
        assert frame.rgb.std() > 15


def test_the_clip_is_the_same_at_every_call(clip):
    again = next(iter(synthetic_clip(frame_count=12, width_px=160, height_px=120)))
    assert np.array_equal(again.rgb, clip[0].rgb)
    assert np.array_equal(again.depth_m, clip[0].depth_m)
    assert again.stamp_ns == clip[0].stamp_ns


def test_poses_are_rotations_with_the_camera_upright(clip):
    for frame in clip:
        rotation = frame.scene_from_cam[:3, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        assert rotation[2, 1] < -0.7  # image down is scene down


def test_the_written_clip_is_an_rgbd_folder_at_15_hz(tmp_path):
    assert write_synthetic_clip(tmp_path / "clip", frame_count=3, width_px=80, height_px=60) == 3
    assert (tmp_path / "clip" / "frame-000004.color.jpg").is_file()
    frames = list(RgbdFolder(tmp_path / "clip"))
    assert frames[1].stamp_ns - frames[0].stamp_ns == round(1e9 / 15)
    for frame, exact in zip(frames, synthetic_clip(frame_count=3, width_px=80, height_px=60), strict=True):
        assert np.abs(frame.depth_m - exact.depth_m).max() <= 0.501e-3
        assert frame.intrinsics == exact.intrinsics


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigurationError, match="frame_count"):
        next(synthetic_clip(frame_count=0))
