import json

import numpy as np
import pytest

from spatial_mllm_ros.answering.setup import SessionConfig, open_session
from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.random_checkpoint import write_random_checkpoint
from spatial_mllm_ros.scene.config import SceneConfig


@pytest.mark.parametrize(("stated", "source"), [({}, "MODEL"), ({"spatial_unit_m": 2.0}, "MODEL_METRIC")])
def test_a_checkpoint_that_states_its_unit_makes_a_scene_without_sensors_metric(tmp_path, stated, source):
    folder = tmp_path / "model"
    write_random_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **stated}))
    session = open_session(
        SessionConfig(
            str(folder),
            "cpu",
            threads=1,
            encoder_window=2,
            encoder_anchors=1,
            encoder_image_width_px=56,
            encoder_backend="torch",
            scene=SceneConfig(rate_hz=0.0, voxel_size_m=0.01),
        )
    )
    pictures = np.random.default_rng(0).integers(0, 255, (3, 42, 56, 3), np.uint8)
    for index, picture in enumerate(pictures):
        session.scene.add(Frame(1 + index, picture))
    assert session.scene.process() == 3
    assert session.scene.status().scale_source is ScaleSource[source]
    assert (session.scene.grid()[0] == 0.01) == bool(stated)  # voxels in metres only where there are metres
