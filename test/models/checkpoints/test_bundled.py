import pytest

import spatial_mllm_ros
from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoints.bundled import CHECKPOINT, bundled_checkpoint


def put_checkpoint(root):
    folder = root / "checkpoints" / CHECKPOINT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Share folder of a wheel or a colcon workspace below tmp_path; the package's own folder is elsewhere in it."""
    package = tmp_path / "local" / "lib" / "python3.10" / "dist-packages" / "spatial_mllm_ros"
    share = tmp_path / "share" / "spatial_mllm_ros"
    for folder in (package, share):
        folder.mkdir(parents=True)
    (share / "package.xml").write_text("<package/>")
    monkeypatch.setattr(spatial_mllm_ros, "__path__", [str(package)])
    return share


def test_the_checkpoint_is_found_under_share(installed):
    folder = put_checkpoint(installed)
    assert bundled_checkpoint() == folder


def test_a_checkout_comes_before_what_is_installed(installed, tmp_path, monkeypatch):
    put_checkpoint(installed)
    checkout = tmp_path / "checkout"
    here = put_checkpoint(checkout)
    monkeypatch.setattr(spatial_mllm_ros, "__path__", [str(checkout / "spatial_mllm_ros"), *spatial_mllm_ros.__path__])
    assert bundled_checkpoint() == here


def test_a_missing_checkpoint_is_named_with_every_place_and_what_to_do(installed):
    with pytest.raises(CheckpointError, match=rf"tiny-rooms is not in this installation.*{installed}.*--checkpoint"):
        bundled_checkpoint()
