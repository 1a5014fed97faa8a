import numpy as np
import pytest

from spatial_mllm_ros.encoders.auto import AutoGeometryEncoder
from spatial_mllm_ros.encoders.base import Anchor, ScaleSource
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import ConfigurationError, EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene


def rgbd(seconds):
    rgb, depth_m = np.zeros((12, 16, 3), np.uint8), np.full((12, 16), 1.5, np.float32)
    return Frame(seconds * 10**9, rgb, "cam", Intrinsics(20, 20, 8, 6, 16, 12), depth_m, np.eye(4))


def rgb_only(seconds):
    return Frame(seconds * 10**9, np.zeros((12, 16, 3), np.uint8), "cam")


class Made:
    """Counts how often VGGT is asked for; a fake stands in for it and keeps what it was given."""

    def __init__(self, window_size=3, anchor_count=2):
        self.count = 0
        self.calls = []
        self.sizes = (window_size, anchor_count)

    def __call__(self):
        self.count += 1
        made = self

        class Vggt(FakeGeometryEncoder):
            name = "vggt"

            def encode(self, frames, anchors):
                made.calls.append(([f.stamp_ns // 10**9 for f in frames], [a.frame.stamp_ns // 10**9 for a in anchors]))
                return super().encode(frames, anchors)

        return Vggt(window_size=self.sizes[0], anchor_count=self.sizes[1])


def test_an_epoch_that_starts_with_all_the_sensor_needs_never_makes_vggt():
    make = Made()
    encoder = AutoGeometryEncoder(SensorDepthEncoder(), make)
    geometries = encoder.encode([rgbd(1), rgbd(2)], [])
    assert [g.scale_source for g in geometries] == [ScaleSource.DEPTH] * 2
    assert (make.count, encoder.name) == (0, "auto(sensor-depth)")


def test_the_choice_holds_for_the_epoch_and_is_made_anew_in_the_next():
    make = Made()
    encoder = AutoGeometryEncoder(SensorDepthEncoder(), make)
    (first,) = encoder.encode([rgbd(1)], [])
    anchor = Anchor(rgbd(1), first)
    with pytest.raises(EncoderError, match="no depth"):
        encoder.encode([rgb_only(2)], [anchor])
    encoder.encode([rgb_only(3)], [])
    encoder.encode([rgbd(4)], [anchor])
    encoder.encode([rgb_only(5)], [])
    assert make.count == 1
    assert [times for times, _ in make.calls] == [[3], [4], [5]]
    encoder.encode([rgbd(6)], [])
    assert encoder.name == "auto(sensor-depth)"


def test_sizes_follow_vggt_once_it_is_known():
    encoder = AutoGeometryEncoder(SensorDepthEncoder(), Made(window_size=3, anchor_count=2), window_size=8)
    assert (encoder.window_size, encoder.anchor_count, encoder.name) == (8, 4, "auto")
    encoder.encode([rgb_only(1)], [])
    assert (encoder.window_size, encoder.anchor_count) == (3, 2)


def test_a_first_window_larger_than_vggt_takes_is_given_in_parts_that_hang_together():
    make = Made(window_size=3, anchor_count=2)
    encoder = AutoGeometryEncoder(SensorDepthEncoder(), make, window_size=8)
    assert len(encoder.encode([rgb_only(t) for t in range(1, 8)], [])) == 7
    assert make.calls == [([1, 2, 3], []), ([4, 5, 6], [2, 3]), ([7], [5, 6])]


def test_why_the_choice_was_made_is_logged(caplog):
    encoder = AutoGeometryEncoder(SensorDepthEncoder(), Made())
    with caplog.at_level("INFO"):
        encoder.encode([rgb_only(1)], [])
    assert "no depth and no pose and no intrinsics" in caplog.text


def test_in_a_scene_the_kind_of_geometry_changes_with_the_epoch_only():
    scene = Scene(SceneConfig(rate_hz=0.0), AutoGeometryEncoder(SensorDepthEncoder(), Made()))
    for t in (10, 11, 12):
        scene.add(rgbd(t))
        scene.process()
    assert scene.status().scale_source is ScaleSource.DEPTH
    scene.add(Frame(13 * 10**9, rgbd(13).rgb, "cam", scene_from_cam=np.eye(4)))
    scene.process()
    assert scene.status().counts == {"encoder": 1}
    scene.add(rgb_only(3))
    scene.process()
    assert (scene.epoch, scene.status().scale_source) == (1, ScaleSource.MODEL)


@pytest.mark.parametrize("values", [{"window_size": 0}, {"anchor_count": 0}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigurationError):
        AutoGeometryEncoder(SensorDepthEncoder(), Made(), **values)
