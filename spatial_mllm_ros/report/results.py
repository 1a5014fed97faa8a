"""How results are written: whole or not at all, with what made them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from spatial_mllm_ros.models.checkpoints.identity import weights_sha256

_PACKAGES = ("spatial-mllm-ros", "numpy", "torch", "transformers", "onnxruntime", "opencv-python-headless", "ros-rclpy")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes ``content`` sorted and indented; a reader never sees half of it, and an old file stays on failure.

    Raises:
        OSError: the folder does not exist or cannot be written.
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    write_text(path, json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, whole or not at all.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
