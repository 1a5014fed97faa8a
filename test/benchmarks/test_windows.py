import numpy as np
import pytest

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.benchmarks.simulated_vggt import SimulatedNoise
from spatial_mllm_ros.benchmarks.windows import draw_windows, drift, true_views, window_rows
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import matrix_from_quaternion

CAMERA = Intrinsics(60.0, 62.0, 39.0, 29.5, 80, 60)


def walk(count):
    v, u = np.mgrid[:60, :80]
    frames = []
    for i in range(count):
        pose = np.eye(4)
        pose[:3, :3] = matrix_from_quaternion([0.02, np.sin(0.03 * i), 0.1, np.cos(0.03 * i)])
        pose[:3, 3] = [0.1 * i, 0.05 * np.sin(i), -0.05 * i]
        depth = (2 + 0.02 * np.abs(u - 20 - i) + 0.015 * v).astype(np.float32)
        depth[0, 0] = 0
        frames.append(Frame(1 + i, np.zeros((60, 80, 3), np.uint8), "camera", CAMERA, depth, pose))
    return frames


def test_drift_is_nothing_without_noise_and_grows_with_it():
    views = true_views(walk(24))
    none = drift(views, 4, 2, SimulatedNoise(0.0, 0.0, 0.0, 0.0, 0.0))
    assert none.metres < 1e-4
    assert none.degrees < 1e-3
    little, much = (drift(views, 4, 2, SimulatedNoise(s, 0.0, 0.0, 0.0, 0.0)) for s in (0.2, 2.0))
    assert none.degrees < little.degrees < much.degrees


def test_views_are_thinned_and_pixels_without_reading_left_out():
    (view,) = true_views(walk(1)).values()
    assert view.depth_m.shape == (30, 40)
    assert view.intrinsics.fx_px == 30.0
    assert np.isnan(view.depth_m[0, 0])
    assert true_views([Frame(1, np.zeros((4, 4, 3), np.uint8))]) == {}


def test_rows_name_window_and_anchors_and_can_be_drawn(tmp_path):
    rows = window_rows(None, windows=(2, 4), anchors=(1,), frames=16, seeds=1, sizes=("tiny",))
    names = [row.name for row in rows]
    assert names.count("windows.rooms.w4.a1.drift_deg") == 1
    assert names.count("windows.tiny.w2.a1.cpu_ms_per_frame") == 1
    assert all(np.isfinite(row.value) for row in rows)
    assert "rotation_deg=0.3" in rows[0].detail
    draw_windows(rows, tmp_path / "windows.svg")
    text = (tmp_path / "windows.svg").read_text()
    assert "rooms: drift, degrees" in text
    draw_windows(rows, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == text


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="benchmark windows"):
        draw_windows([Row("other", 1.0, "s")], tmp_path / "x.svg")
