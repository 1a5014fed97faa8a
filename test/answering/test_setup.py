import json

import numpy as np
import pytest
import torch

from spatial_mllm_ros.answering.setup import SessionConfig, encoder_width_px, load_checkpoint, open_session
from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.small.random_checkpoint import write_random_checkpoint
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
    # voxels in metres only where there are metres
    assert (session.scene.snapshot.fine_voxel_size == 0.01) == bool(stated)


def test_the_encoder_sees_what_the_checkpoint_was_trained_with(random_checkpoint, small_checkpoint):
    assert encoder_width_px(load_checkpoint(str(small_checkpoint), "cpu")[0]) == 112
    assert encoder_width_px(load_checkpoint(str(random_checkpoint), "cpu")[0]) == 518


def test_a_small_checkpoint_in_half_precision_runs_in_single_on_a_cpu(random_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    half = tmp_path / "half"
    half.mkdir()
    for file in random_checkpoint.iterdir():
        if file.suffix == ".safetensors":
            save_file({k: v.half() for k, v in load_file(file).items()}, half / file.name, metadata={"format": "pt"})
        else:
            (half / file.name).write_bytes(file.read_bytes())
    loaded, device = load_checkpoint(str(half), "cpu")
    assert device == "cpu"
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}


def test_the_model_in_the_box_runs_where_no_other_is_named(random_checkpoint, monkeypatch):
    monkeypatch.setattr("spatial_mllm_ros.answering.setup.bundled_checkpoint", lambda: random_checkpoint)
    assert load_checkpoint("", "cpu")[0].identity.name == "random-tiny"
