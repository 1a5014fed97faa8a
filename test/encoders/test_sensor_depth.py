import json

import numpy as np
import pytest

from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import ConfigurationError, EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.rgbd_folder import RgbdFolder
from spatial_mllm_ros.scene.offline.selection import select_offline

POSE = np.array([[0, 0, 1, 5], [-1, 0, 0, 6], [0, -1, 0, 7], [0, 0, 0, 1]], float)
CAMERA = Intrinsics(50.0, 40.0, 7.5, 4.5, 16, 10)


def frame(depth_m=None, **changes):
    depth_m = np.full((10, 16), 2.0, np.float32) if depth_m is None else depth_m
    values = {"intrinsics": CAMERA, "depth_m": depth_m, "scene_from_cam": POSE, **changes}
    return Frame(7, np.zeros((10, 16, 3), np.uint8), **values)


def test_a_pixel_lands_where_camera_and_pose_put_it():
    (geometry,) = SensorDepthEncoder(pixel_stride=2).encode([frame()])
    u, v, z = 2 * 5, 2 * 3, 2.0
    x, y = (u - 7.5) / 50 * z, (v - 4.5) / 40 * z
    np.testing.assert_allclose(geometry.points_scene[3, 5], [5 + z, 6 - x, 7 - y], rtol=1e-6)
    assert geometry.points_scene.shape == (5, 8, 3)
    assert (geometry.intrinsics.width_px, geometry.intrinsics.height_px) == (8, 5)
    assert geometry.scale_source is ScaleSource.DEPTH


def test_readings_that_are_missing_or_too_far_have_no_point_and_no_confidence():
    depth_m = np.full((10, 16), 2.0, np.float32)
    depth_m[0, :4] = [np.nan, 0.0, 6.5, 6.0]
    (geometry,) = SensorDepthEncoder(pixel_stride=1, max_depth_m=6.0).encode([frame(depth_m)])
    assert geometry.confidence[0, :5].tolist() == [0, 0, 0, 1, 1]
    assert np.isnan(geometry.points_scene[0, :3]).all()
    assert np.isfinite(geometry.points_scene[0, 3:]).all()


def test_depth_of_half_the_resolution_has_the_same_field_of_view():
    (half,) = SensorDepthEncoder(pixel_stride=1).encode([frame(np.full((5, 8), 2.0, np.float32))])
    (full,) = SensorDepthEncoder(pixel_stride=1).encode([frame()])
    quads = full.points_scene.reshape(5, 2, 8, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(half.points_scene, quads, atol=1e-5)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({"intrinsics": None}, "no intrinsics"),
        ({"scene_from_cam": None}, "no pose"),
        ({"scene_from_cam": None, "intrinsics": None}, "no pose and no intrinsics"),
    ],
)
def test_a_frame_that_lacks_something_is_refused_naming_it(missing, words):
    with pytest.raises(EncoderError, match=f"Frame 7 ns has {words};"):
        SensorDepthEncoder().encode([frame(), frame(**missing)])
    assert SensorDepthEncoder.missing(frame()) == []


@pytest.mark.parametrize("values", [{"pixel_stride": 0}, {"max_depth_m": 0.0}, {"max_depth_m": np.nan}])
def test_impossible_settings_are_refused_by_name(values):
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        SensorDepthEncoder(**values)


def test_the_official_frames_are_selected_from_a_real_sequence(golden_dir, data_dir):
    expected = json.loads((golden_dir / "sampling" / "real_redkitchen.json").read_text())
    encoder = SensorDepthEncoder(expected["pixel_stride"], expected["depth_max_m"])
    wanted = set(expected["frames"])
    with RgbdFolder(data_dir / "redkitchen") as recording:
        frames = [f for i, f in enumerate(recording) if 2 * i in wanted]
    geometries = encoder.encode(frames)
    points, confidence = (np.stack([getattr(g, n) for g in geometries]) for n in ("points_scene", "confidence"))
    ours = select_offline(points, confidence, 16)
    assert list(ours.greedy_order) == expected["K"]["16"]["greedy_order"]
    assert (ours.covered_voxels, ours.total_voxels) == (expected["K"]["16"]["covered"], expected["K"]["16"]["total"])
    assert list(ours.voxels_per_frame) == expected["voxels_per_frame"]
    assert (list(ours.bbox_min), list(ours.bbox_max)) == (expected["bbox_min"], expected["bbox_max"])
