"""One small checkpoint with random weights for all tests of this room, and frames to show it."""

from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm, load_spatial_mllm
from spatial_mllm_ros.models.small.random_checkpoint import write_random_checkpoint
from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_random_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def loaded(checkpoint_folder: Path) -> LoadedSpatialMllm:
    return load_spatial_mllm(checkpoint_folder)


@pytest.fixture(scope="session")
def small_budget() -> PixelBudget:
    """Keeps frames of 60x90 pixels near that size, so that tests are quick."""
    return PixelBudget(min_px=28 * 28, max_px=56 * 84, pil_resize=True)


@pytest.fixture(scope="session")
def frames() -> list[np.ndarray]:
    """Four different frames, wider than high, without any symmetry."""
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (60, 90, 3), dtype=np.uint8) for _ in range(4)]
