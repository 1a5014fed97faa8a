"""Tries in a separate process whether TensorRT works here: a broken installation may crash instead of raising."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from spatial_mllm_ros.errors import EngineError

_SCRIPT = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
logger = trt.Logger(trt.Logger.ERROR)
runtime = trt.Runtime(logger) is not None
builder = hasattr(trt, "Builder") and hasattr(trt, "OnnxParser")
print(json.dumps({"version": trt.__version__, "can_run": runtime, "can_build": builder}))
"""
_ADVICE = (
    "On a Jetson it comes with JetPack; elsewhere: pip install tensorrt (it downloads from NVIDIA's own index), in the "
    "version of your CUDA."
)


@dataclass(frozen=True)
class TensorRtInfo:
    """A TensorRT that works.

    Attributes:
        version: with all its parts, e.g. "10.3.0.26".
        can_build: builder and ONNX parser are there; the lean runtime has neither.
    """

    version: str
    can_build: bool

    @property
    def takes_attention(self) -> bool:
        """Whether its parser knows the Attention operator of opset 23: from 10.14."""
        major, minor = (int(part) for part in self.version.split(".")[:2])
        return (major, minor) >= (10, 14)


@dataclass(frozen=True)
class GpuInfo:
    """The GPU that engines are built for."""

    name: str
    sm: str
    driver: str
    platform: str


def probe_tensorrt(module: str = "tensorrt", *, timeout_s: float = 120.0) -> TensorRtInfo:
    """Imports ``module`` in another process and makes a runtime there.

    Raises:
        EngineError: ``unavailable``: it is not installed, needs a driver that is not there, or crashes.
    """
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _SCRIPT, module], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError("unavailable", f"TensorRT ({module}) could not be tried: {error}.") from error
    if ran.returncode < 0:
        name = signal.Signals(-ran.returncode).name
        raise EngineError("unavailable", f"TensorRT ({module}) crashes with {name} when it is loaded. {_ADVICE}")
    if ran.returncode:
        reason = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError("unavailable", f"TensorRT ({module}) does not load: {reason}. {_ADVICE}")
    try:
        told = json.loads(ran.stdout.strip().splitlines()[-1])
        info = TensorRtInfo(version=str(told["version"]), can_build=bool(told["can_build"]))
        _ = info.takes_attention  # the version can be read
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EngineError("unavailable", f"TensorRT ({module}) gave an answer that makes no sense: {error}.") from error
    return info


def gpu_info() -> GpuInfo:
    """The current CUDA device.

    Raises:
        EngineError: ``unavailable``: torch finds none.
    """
    if not torch.cuda.is_available():
        raise EngineError("unavailable", "torch finds no CUDA device; engines are built on the GPU that runs them.")
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return GpuInfo(
        name=properties.name,
        sm=f"{properties.major}.{properties.minor}",
        driver=_driver(),
        platform=f"{platform.system()}-{platform.machine()}",
    )


def _driver() -> str:
    """The version line of a desktop driver, or the L4T release of a Jetson; "unknown" where there is neither."""
    for path in (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release")):
        if path.is_file():
            return (path.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[0].strip()
    return "unknown"
