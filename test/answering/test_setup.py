import torch

from spatial_mllm_ros.answering.setup import encoder_width_px, load_checkpoint


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
