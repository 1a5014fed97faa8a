import json

import pytest
import torch

from spatial_mllm_ros.answering.setup import encoder_width_px, load_checkpoint


@pytest.fixture
def with_budget(random_checkpoint, tmp_path):
    """A copy of the checkpoint whose config.json says what it was trained with."""
    folder = tmp_path / "budget"
    folder.mkdir()
    for file in random_checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["pixel_budget"] = {"min_px": 112 * 84, "max_px": 224 * 168, "pil_resize": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_encoder_sees_what_the_checkpoint_was_trained_with(random_checkpoint, with_budget):
    assert encoder_width_px(load_checkpoint(str(with_budget), "cpu")[0]) == 224
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
