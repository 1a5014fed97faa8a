"""What made a result: the versions and the machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("spatial-mllm-ros", "numpy", "torch", "transformers", "onnxruntime", "opencv-python-headless", "ros-rclpy")


def code_version() -> str:
    """Version of this package; "unknown" where it runs from a checkout that is not installed."""
    try:
        return metadata.version("spatial-mllm-ros")
    except metadata.PackageNotFoundError:
        return "unknown"


def versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, with ``more`` of them."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in (*_PACKAGES, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def machine() -> dict[str, Any]:
    """The hardware that ran the measurement, without anything that names the machine."""
    return {"cpu": _cpu_model(), "cores": os.cpu_count(), "architecture": platform.machine(), "gpu": _gpu_name()}


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
