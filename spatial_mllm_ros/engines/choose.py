"""Chooses the backends that run VGGT on this machine, and logs why the others do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from spatial_mllm_ros.engines.backend import EngineBackend
from spatial_mllm_ros.engines.cache import EngineCache
from spatial_mllm_ros.engines.chain import BackendChain
from spatial_mllm_ros.engines.exported import ExportedModel, exports_home, find_exported
from spatial_mllm_ros.engines.onnxruntime_backend import OnnxRuntimeBackend, available_providers
from spatial_mllm_ros.engines.profile import Precision
from spatial_mllm_ros.engines.tensorrt_engines import TensorRtHere, best_for, open_tensorrt
from spatial_mllm_ros.engines.torch_backend import TorchBackend
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.vggt import VGGT

#: Values of ``encoder.backend``. torch itself is always the last backend, for sizes without an export.
BACKENDS = ("auto", "tensorrt", "onnxruntime", "torch-compiled", "torch")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackendConfig:
    """Which backends to choose.

    Attributes:
        backend: one of ``BACKENDS``; "auto" takes TensorRT engines that are in the cache, then exports in ONNX Runtime,
            then torch. One that is named must work, and TensorRT builds an engine that is missing.
        exports: folder of exports; None for the usual one.
        cache: folder of engines; None for the usual one.
    """

    backend: str = "auto"
    exports: Path | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigurationError(f"encoder.backend is {self.backend!r}; it must be one of {', '.join(BACKENDS)}.")


def open_backends(vggt: VGGT, model_sha256: str, config: BackendConfig) -> BackendChain:
    """The backends for ``vggt``, best first, torch last.

    Args:
        vggt: on the device where it will run.
        model_sha256: of its weights: exports of other weights are passed over.

    Raises:
        ConfigurationError: the backend named in ``config`` does not work here; the message says why.
    """
    on_cuda = vggt.aggregator.camera_token.device.type == "cuda"
    plain = TorchBackend(vggt)
    if config.backend == "torch":
        return BackendChain([plain])
    if config.backend == "torch-compiled":
        return BackendChain([TorchBackend(vggt, compiled=True), plain])
    parent = config.exports or exports_home()
    exports, reasons = find_exported(parent, model_sha256=model_sha256)
    if not exports:
        reasons.append(f"there is no export of these weights in {parent} (spatial_mllm engine export makes one)")
    opened: list[EngineBackend] = []
    if exports and config.backend in ("auto", "tensorrt"):
        opened += _tensorrt(exports, config, on_cuda, reasons)
    if exports and config.backend in ("auto", "onnxruntime"):
        opened += _onnxruntime(exports, on_cuda, reasons)
    for reason in reasons:
        _log.info("Backends of the spatial encoder: passed over: %s", reason)
    if config.backend != "auto" and not opened:
        raise ConfigurationError(
            f"encoder.backend is {config.backend!r}, which does not work here: {'; '.join(reasons)}"
        )
    chain = BackendChain([*opened, plain])
    _log.info("The spatial encoder runs on: %s", chain.name)
    return chain


def _tensorrt(
    exports: list[ExportedModel], config: BackendConfig, on_cuda: bool, reasons: list[str]
) -> list[EngineBackend]:
    if not on_cuda:
        reasons.append("TensorRT: the model is not on a CUDA device")
        return []
    try:
        here = TensorRtHere.find()
        cache = EngineCache(config.cache)
    except EngineError as error:
        reasons.append(f"TensorRT: {error}")
        return []
    usable = [e for e in best_for(here, exports) if e.profile.precision is not Precision.FP32 or _alone(e, exports)]
    may_build = config.backend == "tensorrt"
    return _opened(usable, lambda e: open_tensorrt(here, e, cache, may_build=may_build), reasons)


def _onnxruntime(exports: list[ExportedModel], on_cuda: bool, reasons: list[str]) -> list[EngineBackend]:
    provider = "cuda" if on_cuda else "cpu"
    if provider not in available_providers():
        installed = ", ".join(available_providers()) or "no provider, it is not installed"
        reasons.append(f"ONNX Runtime: no provider for {provider} (it has {installed})")
        return []
    newest: dict[str, ExportedModel] = {}
    for exported in sorted(exports, key=lambda e: e.opset):
        if on_cuda or exported.profile.precision is Precision.FP32:
            newest[exported.profile.name] = exported
        else:
            # The CPU provider has no kernels for bfloat16, and converts float16 to float32 and back.
            reasons.append(f"ONNX Runtime: {exported.profile.name} is in half precision, which does not pay on a CPU")
    return _opened(newest.values(), lambda e: OnnxRuntimeBackend(e, provider=provider), reasons)


def _alone(exported: ExportedModel, exports: Iterable[ExportedModel]) -> bool:
    """Whether no half-precision export has the same job at the same size."""
    ours = exported.profile
    return not any(
        (e.profile.kind, e.profile.width_px, e.profile.height_px) == (ours.kind, ours.width_px, ours.height_px)
        and e.profile.precision is not Precision.FP32
        for e in exports
    )


def _opened(
    exports: Iterable[ExportedModel], make: Callable[[ExportedModel], EngineBackend], reasons: list[str]
) -> list[EngineBackend]:
    opened = []
    for exported in exports:
        try:
            opened.append(make(exported))
        except (EngineError, torch.OutOfMemoryError) as error:
            reasons.append(f"{exported.profile.name}: {error}")
    return opened
