"""What made a result: versions, machine, and hashes of what went in."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from spatial_mllm_ros.models.checkpoints.identity import weights_sha256

_PACKAGES = ("spatial-mllm-ros", "numpy", "torch", "transformers", "onnxruntime", "opencv-python-headless", "ros-rclpy")


def path_sha256(path: Path) -> str:
    """SHA-256 of a file (what ``sha256sum`` prints), or over the files of a folder in order of their names.

    Raises:
        OSError: a file cannot be read.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return weights_sha256(files)


def json_sha256(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, written as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def machine() -> dict[str, Any]:
    """What ran the measurement, without anything that names the machine."""
    return {"cpu": _cpu_model(), "cores": os.cpu_count(), "architecture": platform.machine(), "gpu": _gpu_name()}


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
