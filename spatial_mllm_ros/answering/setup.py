"""Opens a session from its configuration: checkpoint, spatial encoder, scene and answer model."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from spatial_mllm_ros.answering.context import ContextConfig
from spatial_mllm_ros.answering.session import SpatialSession
from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.encoders.auto import AutoGeometryEncoder
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.encoders.vggt import VggtGeometryEncoder
from spatial_mllm_ros.engines.choose import BackendConfig, open_backends
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.checkpoints.bundled import bundled_checkpoint
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm, load_spatial_mllm
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

_SMALL_BYTES = 1 << 28  # of weights
_CAMERA_PX = 480, 640  # height, width of the camera that default sizes are made for
_PUBLISHED_WIDTH_PX = 518  # at which the published VGGT was trained


@dataclass(frozen=True)
class SessionConfig:
    """The settings of a session.

    Attributes:
        checkpoint: folder of the model; "" for the bundled one.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        threads: CPU threads of the models; 0 for half of the cores, which leaves the others to cameras and middleware.
        max_new_tokens: longest answer.
        encoder_window: new frames per call of the spatial encoder; not used with sensor depth and poses.
        encoder_anchors: placed frames per call, which align a window with the scene.
        encoder_image_width_px: width at which the spatial encoder sees frames for the scene; 0: the width that the
            checkpoint's pixel budget gives an image of 640x480, or 518 where its config.json has no budget.
        encoder_backend: name of the runtime of the spatial encoder, for the scene and for the language model; see
            ``engines.choose.BACKENDS``.
        encoder_exports: folder of exports; "" for the default one.
        scene: ring buffer, keyframes and selection.
        context: when contexts are made.
    """

    checkpoint: str = ""
    device: str = "auto"
    threads: int = 0
    max_new_tokens: int = 64
    encoder_window: int = 6
    encoder_anchors: int = 2
    encoder_image_width_px: int = 0
    encoder_backend: str = "auto"
    encoder_exports: str = ""
    scene: SceneConfig = field(default_factory=SceneConfig)
    context: ContextConfig = field(default_factory=ContextConfig)


def open_session(config: SessionConfig) -> SpatialSession:
    """Loads the model and makes an empty scene.

    Raises:
        CheckpointError: the folder is absent, damaged or incomplete.
        ConfigurationError: a value is outside its range, or CUDA or a backend is asked for and absent.
    """
    backend_config = BackendConfig(
        config.encoder_backend, Path(config.encoder_exports) if config.encoder_exports else None
    )
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 2) // 2))
    loaded, device = load_checkpoint(config.checkpoint, config.device)

    width_px = config.encoder_image_width_px or encoder_width_px(loaded)
    chain = open_backends(loaded.model.spatial_encoder, loaded.identity.sha256, backend_config)
    if chain.has_engines:  # without engines the model's own VGGT is used, which can be interrupted between its layers
        loaded.model.take_last_layer_from(chain.last_layer)

    def vggt_encoder() -> VggtGeometryEncoder:
        return VggtGeometryEncoder(
            chain,
            device=device,
            image_width_px=width_px,
            window_size=config.encoder_window,
            anchor_count=config.encoder_anchors,
            unit_m=loaded.spatial_unit_m,
        )

    encoder = AutoGeometryEncoder(
        SensorDepthEncoder(),
        vggt_encoder,
        window_size=config.encoder_window,
        anchor_count=config.encoder_anchors,
        fault=lambda: chain.fault,
    )
    model = SpatialMllmAnswerModel(loaded, max_new_tokens=config.max_new_tokens, cache_bytes=config.context.cache_bytes)
    return SpatialSession(Scene(config.scene, encoder), model, config.context)


def load_checkpoint(checkpoint: str, device: str) -> tuple[LoadedSpatialMllm, str]:
    """The model of a folder ("" for the bundled one) and its device; see SessionConfig.

    Raises:
        CheckpointError: the folder is absent, damaged or incomplete.
        ConfigurationError: an unknown device, or CUDA is asked for and absent.
    """
    used = _device(device)
    return _load(Path(checkpoint) if checkpoint else bundled_checkpoint(), used), used


def _load(folder: Path, device: str) -> LoadedSpatialMllm:
    """Small models are loaded in float32 on a CPU: half precision is several times slower there."""
    small = sum(file.stat().st_size for file in folder.glob("*.safetensors")) <= _SMALL_BYTES
    return load_spatial_mllm(folder, device=device, dtype=torch.float32 if small and device == "cpu" else None)


def encoder_width_px(loaded: LoadedSpatialMllm) -> int:
    """The default long side at which the spatial encoder of a checkpoint sees frames for the scene.

    A pixel budget in config.json states the size that the weights were trained with; without one the size is that of
    the published VGGT.
    """
    if "pixel_budget" not in loaded.config:
        return _PUBLISHED_WIDTH_PX
    return max(loaded.budget.size_px(*_CAMERA_PX))


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "device is 'cuda' but this torch finds no CUDA device; install a CUDA build of torch, or use 'auto'."
        )
    if name not in ("cpu", "cuda"):
        raise ConfigurationError(f"device is {name!r}; it must be 'auto', 'cpu' or 'cuda'.")
    return name
