"""Exported models in ONNX Runtime, with whichever execution provider is installed."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatial_mllm_ros.engines.backend import check_request, prediction_of
from spatial_mllm_ros.engines.exported import ExportedModel
from spatial_mllm_ros.engines.profile import INPUT_NAME, TENSORS_OF
from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.models.vggt import VggtOutput, VggtPrediction

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_NUMPY = {"tensor(float)": (np.float32, torch.float32), "tensor(float16)": (np.float16, torch.float16)}


def available_providers() -> tuple[str, ...]:
    """Which of ``PROVIDERS`` the installed ONNX Runtime was built with; () where it is not installed."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return ()
    built_in = runtime.get_available_providers()
    return tuple(name for name, provider in PROVIDERS.items() if provider in built_in)


class OnnxRuntimeBackend:
    """One exported model in one session.

    On CUDA, images and results stay where they are: the session reads and writes torch's memory through an IO binding.

    Args:
        exported: checked before it is loaded.
        provider: "cpu", "cuda" or "tensorrt"; the first of these is the fallback of single operators of the others.
        threads: CPU threads; 0 for torch's number.
        engine_folder: where the TensorRT provider keeps its engines, a private folder.

    Raises:
        EngineError: ONNX Runtime or the provider is not there (``unavailable``), or the model cannot be loaded.
    """

    def __init__(
        self, exported: ExportedModel, *, provider: str = "cpu", threads: int = 0, engine_folder: Path | None = None
    ) -> None:
        if provider not in available_providers():
            installed = ", ".join(available_providers()) or "none: it is not installed"
            raise EngineError(
                "unavailable",
                f"ONNX Runtime has no provider {provider!r} here (it has {installed}); install onnxruntime, or a build "
                "of onnxruntime-gpu for this machine.",
            )
        exported.verify()
        self.name = f"onnxruntime-{provider}({exported.profile.name})"
        self.profile = exported.profile
        self._on_cuda = provider != "cpu"
        self._session: Any = _open(exported, provider, threads or torch.get_num_threads(), engine_folder)
        stated = self._session.get_modelmeta().custom_metadata_map
        if stated.get("profile") != exported.metadata["profile"]:
            raise EngineError("tampered", f"The profile inside {exported.model_path} is not the one beside it.")
        self._types = {output.name: _NUMPY[output.type] for output in self._session.get_outputs()}

    def refusal(self, image_shape: tuple[int, ...], outputs: Collection[VggtOutput]) -> str:
        """See ``EngineBackend``."""
        return "it has been closed" if self._session is None else self.profile.refusal(image_shape, outputs)

    def __call__(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """See ``EngineBackend``. Only the outputs asked for are computed."""
        check_request(self, images, outputs)
        wanted = [name for output in outputs for name in TENSORS_OF[output]]
        try:
            found = self._run_on_cuda(images, wanted) if self._on_cuda else self._run_on_cpu(images, wanted)
        except Exception as error:  # the runtime's have no public base class
            raise EngineError("run", f"The backend {self.name} failed on {images.shape[1]} frames: {error}") from error
        return prediction_of(found, outputs)

    def close(self) -> None:
        """See ``EngineBackend``."""
        self._session = None

    def _run_on_cpu(self, images: Tensor, wanted: list[str]) -> dict[str, Tensor]:
        arrays = self._session.run(wanted, {INPUT_NAME: images.float().cpu().contiguous().numpy()})
        return {name: torch.from_numpy(array).to(images.device) for name, array in zip(wanted, arrays, strict=True)}

    def _run_on_cuda(self, images: Tensor, wanted: list[str]) -> dict[str, Tensor]:
        source = images.float().contiguous()
        binding, index = self._session.io_binding(), source.device.index or 0
        binding.bind_input(INPUT_NAME, "cuda", index, np.float32, tuple(source.shape), source.data_ptr())
        found: dict[str, Tensor] = {}
        for output in self._session.get_outputs():
            if output.name in wanted:
                number, dtype = self._types[output.name]
                shape = [source.shape[1] if isinstance(side, str) else side for side in output.shape]
                found[output.name] = torch.empty(shape, dtype=dtype, device=source.device)
                binding.bind_output(output.name, "cuda", index, number, tuple(shape), found[output.name].data_ptr())
        torch.cuda.current_stream(source.device).synchronize()  # the session works on a stream of its own
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return found


def _open(exported: ExportedModel, provider: str, threads: int, engine_folder: Path | None) -> Any:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers: list[Any] = [PROVIDERS[name] for name in ("cuda", "cpu") if name in available_providers()]
    if provider == "tensorrt":
        settings: dict[str, Any] = {"trt_engine_cache_enable": engine_folder is not None}
        if engine_folder is not None:
            # Without a prefix of ours the engines of different models collide: every graph has the same name.
            prefix = exported.onnx_sha256[:16]
            settings |= {"trt_engine_cache_path": str(engine_folder), "trt_engine_cache_prefix": prefix}
            settings |= {"trt_timing_cache_enable": True, "trt_timing_cache_path": str(engine_folder)}
        providers.insert(0, (PROVIDERS["tensorrt"], settings))
    try:
        return runtime.InferenceSession(
            str(exported.model_path), options, providers=providers if provider != "cpu" else [PROVIDERS["cpu"]]
        )
    except Exception as error:  # the runtime's have no public base class
        raise EngineError(
            "unavailable", f"ONNX Runtime ({provider}) cannot load {exported.model_path}: {error}"
        ) from error
