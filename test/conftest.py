"""Fixtures that every test may use."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from spatial_mllm_ros.models.small.random_checkpoint import write_random_checkpoint

from .ros_processes import ros_client, start_node, start_process  # noqa: F401 (fixtures of the tests between processes)


def _beside_the_project(name: str) -> Path:
    folder = Path(__file__).resolve().parents[1].parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"reference data {name!r} is not beside the project (../shared/{name})")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Reference outputs of the published implementations."""
    return _beside_the_project("golden")


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model, small and quick, whose text means nothing."""
    folder = tmp_path_factory.mktemp("checkpoints") / "random-tiny"
    write_random_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def small_checkpoint(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, said to be trained with frames of 112x84 pixels: the quickest complete model."""
    folder = tmp_path_factory.mktemp("checkpoints") / "random-small"
    shutil.copytree(random_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["pixel_budget"] = {"min_px": 112 * 84, "max_px": 112 * 84, "pil_resize": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def endless_checkpoint(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights but for one word: the token that ends an answer is never the likeliest."""
    folder = tmp_path_factory.mktemp("checkpoints") / "random-endless"
    shutil.copytree(random_checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    end = json.loads((folder / "config.json").read_text())["eos_token_id"]
    tensors["model.embed_tokens.weight"][end] = 0.0  # words share it with logits; some other logit is above 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real camera recordings."""
    return _beside_the_project("data")
