import dataclasses
import json

import pytest

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.vggt import VggtConfig


def test_a_configuration_survives_json() -> None:
    config = VggtConfig.vggt_1b(point_head=False)
    assert VggtConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"depth": 0}, "VggtConfig.depth is 0"),
        ({"image_size_px": 500}, "image_size_px is 500"),
        ({"heads": 3}, "heads is 3"),
        ({"dpt_layers": (4, 11, 17, 24)}, "dpt_layers is"),
        ({"dpt_layers": (4, 11, 17)}, "dpt_layers is"),
        ({"dpt_channels": (256, 512, 1024, 1022)}, "dpt_channels is"),
        ({"dpt_frames_per_chunk": -1}, "dpt_frames_per_chunk is -1"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        VggtConfig(**change)


def test_dense_head_sizes_do_not_matter_without_dense_heads() -> None:
    assert VggtConfig(depth=2, depth_head=False, point_head=False).depth == 2
