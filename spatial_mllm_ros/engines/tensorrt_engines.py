"""Opens the TensorRT backend of an export: an engine of the cache or a new one, compared with torch's results."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file

from spatial_mllm_ros.engines.backend import EngineBackend, tensors_of
from spatial_mllm_ros.engines.cache import EngineCache, EngineKey
from spatial_mllm_ros.engines.exported import ExportedModel
from spatial_mllm_ros.engines.parity import ParityRow, compare, parity_table
from spatial_mllm_ros.engines.profile import INPUT_NAME
from spatial_mllm_ros.engines.tensorrt_backend import CudaDevice, Device, TensorRtBackend
from spatial_mllm_ros.engines.tensorrt_build import BUILDER_FLAGS, build_engine
from spatial_mllm_ros.engines.tensorrt_probe import GpuInfo, TensorRtInfo, gpu_info, probe_tensorrt
from spatial_mllm_ros.errors import EngineError


@dataclass(frozen=True)
class TensorRtHere:
    """A TensorRT that works, and the GPU that it works on."""

    info: TensorRtInfo
    gpu: GpuInfo
    module: str = "tensorrt"

    @classmethod
    def find(cls, module: str = "tensorrt") -> TensorRtHere:
        """Looks for both.

        Raises:
            EngineError: ``unavailable``.
        """
        gpu = gpu_info()  # first: without a GPU there is nothing to probe
        return cls(probe_tensorrt(module), gpu, module)

    def load(self) -> Any:
        """The module itself."""
        return importlib.import_module(self.module)

    def takes(self, exported: ExportedModel) -> bool:
        """Whether this version's parser knows the export's operators."""
        return exported.opset <= 20 or self.info.takes_attention

    def key(self, exported: ExportedModel) -> EngineKey:
        """The key of the engine of ``exported`` in the cache."""
        return EngineKey(
            onnx_sha256=exported.onnx_sha256,
            runtime=f"{self.module} {self.info.version}",
            driver=self.gpu.driver,
            gpu=self.gpu.name,
            sm=self.gpu.sm,
            platform=self.gpu.platform,
            profile=exported.profile.name,
            precision=exported.profile.precision.value,
            builder_flags=BUILDER_FLAGS,
            code_version=exported.metadata["code_version"],
        )


def best_for(here: TensorRtHere, exports: list[ExportedModel]) -> list[ExportedModel]:
    """Of several exports of one profile, the newest operators that this TensorRT knows."""
    best: dict[str, ExportedModel] = {}
    for exported in sorted(exports, key=lambda e: e.opset):
        if here.takes(exported):
            best[exported.profile.name] = exported
    return list(best.values())


def open_tensorrt(
    here: TensorRtHere,
    exported: ExportedModel,
    cache: EngineCache,
    *,
    may_build: bool,
    device: Device | None = None,
) -> TensorRtBackend:
    """A warm backend whose results agree with torch's.

    Raises:
        EngineError: of the cache; ``unavailable``: not in the cache, and building is not allowed or not possible;
            ``build``; ``run``; ``parity``: the engine computes something else.
    """
    trt, key = here.load(), here.key(exported)

    def build(path: Any, tell: Any) -> None:
        exported.verify()
        with cache.locked("timing"):
            build_engine(trt, exported.model_path, exported.profile, path, timing_cache=cache.timing_cache, tell=tell)

    if may_build:
        if not here.info.can_build:
            raise EngineError(
                "unavailable", f"TensorRT {here.info.version} here is the lean runtime, without a builder."
            )
        engine, _ = cache.get_or_build(key, build)
    else:
        try:
            engine = cache.open(key)
        except EngineError as error:
            raise EngineError(
                error.cause, f"{error} To build it: spatial_mllm engine build {exported.folder}"
            ) from error
    backend = TensorRtBackend(trt, engine, exported.profile, device or CudaDevice())
    try:
        check_against_sample(backend, exported)
    except EngineError:
        backend.close()
        raise
    return backend


def check_against_sample(backend: EngineBackend, exported: ExportedModel) -> list[ParityRow]:
    """Runs ``backend`` on the sample of the export and compares it with what torch made of it.

    A builder may miscompile a graph for one GPU and not for another, so this is done where the engine will run.

    Raises:
        EngineError: ``parity``, or that of the backend.
    """
    exported.verify()
    sample = load_file(str(exported.sample_path))
    images, outputs = sample.pop(INPUT_NAME), exported.profile.outputs
    rows = compare(backend.name, tensors_of(backend(images, outputs), outputs), sample, exported.profile.precision)
    if not all(row.accepted for row in rows):
        raise EngineError(
            "parity", f"{backend.name} does not compute what torch computes, it is refused:\n{parity_table(rows)}"
        )
    return rows
