import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spatial_mllm_ros.models.vggt import VGGT, VggtConfig


@pytest.fixture(scope="session")
def small_config() -> VggtConfig:
    """Smaller than the reference, for tests that need no reference values."""
    return VggtConfig(
        image_size_px=70,
        embed_dim=32,
        dino_depth=1,
        dino_heads=2,
        depth=4,
        heads=2,
        camera_trunk_depth=1,
        camera_heads=2,
        dpt_layers=(0, 1, 1, 2),
        dpt_features=16,
        dpt_channels=(8, 8, 12, 16),
    )


@pytest.fixture
def small_model(small_config: VggtConfig) -> VGGT:
    """Fixed random weights, none of them zero, so that every part has its say."""
    model = VGGT(small_config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.add_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return model


@pytest.fixture(scope="session")
def reference_model(golden_dir: Path) -> VGGT:
    folder = golden_dir / "vggt_tiny"
    model = VGGT(VggtConfig.from_reference_meta(json.loads((folder / "meta.json").read_text())))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    """Two clips of three frames, 42 px high and 70 px wide."""
    return torch.rand(2, 3, 3, 42, 70, generator=torch.Generator().manual_seed(5))
