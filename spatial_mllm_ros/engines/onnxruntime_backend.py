"""Exported models in ONNX Runtime, on its CPU or CUDA execution provider."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatial_mllm_ros.engines.backend import check_request, prediction_of
from spatial_mllm_ros.engines.exported import ExportedModel
from spatial_mllm_ros.engines.profile import INPUT_NAME, TENSORS_OF
from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.models.vggt import VggtOutput, VggtPrediction

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
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
        provider: "cpu", with as many threads as torch; or "cuda", which leaves operators that it lacks to the CPU.

    Raises:
        EngineError: ONNX Runtime or the provider is not there (``unavailable``), or the model cannot be loaded.
    """

    def __init__(self, exported: ExportedModel, *, provider: str = "cpu") -> None:
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
        self._on_cuda = provider == "cuda"
        self._session: Any = _open(exported, provider)
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


def _open(exported: ExportedModel, provider: str) -> Any:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers = [PROVIDERS["cpu"]] if provider == "cpu" else [PROVIDERS[provider], PROVIDERS["cpu"]]
    try:
        return runtime.InferenceSession(str(exported.model_path), options, providers=providers)
    except Exception as error:  # the runtime's have no public base class
        raise EngineError(
            "unavailable", f"ONNX Runtime ({provider}) cannot load {exported.model_path}: {error}"
        ) from error
