import math

import pytest

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scene.config import SceneConfig


@pytest.mark.parametrize(
    "change",
    [
        {"ring_frames": 0},
        {"ring_bytes": 0},
        {"keyframes": -1},
        {"keyframe_bytes": -1},
        {"keyframe_min_gain": 0},
        {"selected_frames": 0},
        {"selected_frames": 2.5},
        {"max_points_per_frame": 0},
        {"time_jump_ns": -1},
        {"rate_hz": -0.1},
        {"rate_hz": math.nan},
        {"voxel_size_m": 0.0},
        {"voxel_size_m": math.inf},
        {"age_half_life_s": 0.0},
        {"age_half_life_s": math.inf},
        {"age_discount": -0.1},
        {"age_discount": 1.0},
        {"seen_through_frames": -1},
        {"seen_through_frames": 256},
        {"min_confidence_percentile": 100.0},
        {"min_confidence_percentile": -1.0},
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(change):
    (name,) = change
    with pytest.raises(ConfigurationError, match=f"SceneConfig.{name} is"):
        SceneConfig(**change)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(ConfigurationError, match=r"ring_frames.*rate_hz"):
        SceneConfig(ring_frames=0, rate_hz=-1)
