"""One small VGGT and its exports, made once: exporting is what takes the time here."""

import copy
from pathlib import Path

import pytest
import torch

from spatial_mllm_ros.engines.export import ExportOptions, export_profile
from spatial_mllm_ros.engines.exported import ExportedModel
from spatial_mllm_ros.engines.profile import EngineProfile
from spatial_mllm_ros.models.identity import ModelIdentity
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig

IDENTITY = ModelIdentity("small", "5e" * 32, "VGGT", "apache-2.0", random_weights=True)
GEOMETRY = EngineProfile("geometry", 56, 42, 2, 3, 6)  # wider than high
FUSION = EngineProfile("fusion", 42, 56, 2, 4, 8, "fp16")  # higher than wide


def _small_vggt() -> VGGT:
    """Random weights, none of them zero, so that every part has its say."""
    config = VggtConfig(
        image_size_px=70,
        embed_dim=32,
        dino_depth=1,
        dino_heads=2,
        depth=2,
        heads=2,
        camera_trunk_depth=1,
        camera_heads=2,
        camera_iterations=2,
        dpt_layers=(0, 0, 1, 1),
        dpt_features=8,
        dpt_channels=(8, 8, 8, 8),
        point_head=False,
    )
    model = VGGT(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.add_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return model


@pytest.fixture(scope="session")
def vggt() -> VGGT:
    return _small_vggt()


@pytest.fixture(scope="session")
def exports_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="session")
def geometry_export(vggt: VGGT, exports_folder: Path) -> ExportedModel:
    """float32, operators of opset 23, weights in a file of their own."""
    options = ExportOptions(opset=23, external_data=True)
    return export_profile(copy.deepcopy(vggt), IDENTITY, GEOMETRY, exports_folder / "geometry", options)


@pytest.fixture(scope="session")
def fusion_export(vggt: VGGT, exports_folder: Path) -> ExportedModel:
    """float16, operators of opset 20, one file."""
    options = ExportOptions(opset=20)
    return export_profile(copy.deepcopy(vggt), IDENTITY, FUSION, exports_folder / "fusion", options)
