import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.rooms.clips import make_clips
from spatial_mllm_ros.rooms.writers import FORMATS, RecordingConfig, scene_path, write_room
from spatial_mllm_ros.scene_questions.scene_annotation import read_scene

CONFIG = RecordingConfig(frames=5, rate_hz=10.0, width_px=96, height_px=64, realistic=False)


@pytest.fixture(scope="module")
def clip():
    return make_clips([8], CONFIG.clip())[0]


@pytest.mark.parametrize("form", FORMATS)
def test_a_written_room_is_a_recording_with_its_scene_beside_it(tmp_path, clip, form):
    path = write_room(tmp_path, 8, form, CONFIG)
    scene = read_scene(scene_path(path))
    assert np.array_equal(scene.visibility.pixels, clip.annotation.visibility.pixels)
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) == 5
    for frame, exact in zip(frames, clip.frames(), strict=True):
        assert frame.rgb.shape == (64, 96, 3)
        assert np.abs(frame.rgb.astype(int) - exact.rgb).mean() < (0.01 if form in ("mcap", "sqlite3") else 12)
        if form == "video":
            continue
        assert np.allclose(frame.scene_from_cam, exact.scene_from_cam, atol=1e-6)
        assert np.array_equal(np.isnan(frame.depth_m), np.isnan(exact.depth_m))
        assert np.nanmax(np.abs(frame.depth_m - exact.depth_m)) <= 0.51e-3
        assert frame.intrinsics.matrix() == pytest.approx(exact.intrinsics.matrix())
    with pytest.raises(SourceError, match="exists already"):
        write_room(tmp_path, 8, form, CONFIG)


def test_another_format_and_a_rate_of_zero_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'avi'"):
        write_room(tmp_path, 8, "avi", CONFIG)
    with pytest.raises(ConfigurationError, match="0 Hz"):
        write_room(tmp_path, 8, "mcap", RecordingConfig(rate_hz=0))
