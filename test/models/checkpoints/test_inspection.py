import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.models.checkpoints.inspection import inspect_checkpoint


@pytest.fixture
def folder(checkpoint_folder, tmp_path):
    """A copy of the small checkpoint that may be changed."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in checkpoint_folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_whole_folder_is_described_and_would_load(checkpoint_folder, loaded):
    found = inspect_checkpoint(checkpoint_folder)
    assert found.loads
    assert (found.layout, found.licence, found.random_weights) == ("Spatial-MLLM v1.1", "apache-2.0", True)
    total = sum(weight.numel() for weight in loaded.model.parameters())
    assert sum(found.parameters.values()) == total
    assert found.memory_float32_bytes == 4 * total
    assert 2 * total < found.memory_bfloat16_bytes < 4 * total
    assert set(found.dtypes) == {"F32"}
    assert "RANDOM" in found.in_words()


def test_missing_unexpected_and_misshapen_keys_are_listed(folder, capsys):
    def edit(tensors):
        del tensors["connector.ln_q.weight"]
        tensors["connector.more"] = torch.zeros(3, dtype=torch.float16)
        tensors["model.norm.weight"] = torch.zeros(7)

    change(folder, edit)
    found = inspect_checkpoint(folder)
    assert not found.loads
    assert found.missing == ("connector.ln_q.weight",)
    assert found.unexpected == ("connector.more",)
    assert found.wrong_shape == ("model.norm.weight [7] instead of [64]",)
    assert found.dtypes["F16"] == 1
    assert main(["inspect", str(folder), "--json", str(folder / "found.json")]) == 1
    assert "connector.ln_q.weight" in capsys.readouterr().out
    assert json.loads((folder / "found.json").read_text())["missing"] == ["connector.ln_q.weight"]


def test_a_folder_of_no_known_layout_is_described_with_its_problem(folder):
    change(folder, lambda tensors: tensors.clear() or tensors.update(weight=torch.zeros(5)))
    found = inspect_checkpoint(folder)
    assert (found.layout, found.loads) == ("unknown", False)
    assert "The keys start with weight" in found.problem
    assert found.memory_float32_bytes == 20
