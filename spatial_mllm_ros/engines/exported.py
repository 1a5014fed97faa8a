"""Exports on disk: one folder each, with the ONNX graph, its weights, and a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_ros.engines.files import check_manifest, read_manifest
from spatial_mllm_ros.engines.parity import ParityRow
from spatial_mllm_ros.engines.profile import EngineProfile
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.storage import bytes_sha256, is_temporary, recovered, user_cache

MANIFEST_NAME = "export.json"
MODEL_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"
SAMPLE_NAME = "parity.safetensors"


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """An export whose manifest has been read; its files are not checked before ``verify``.

    Attributes:
        metadata: what stands inside the ONNX file as well: model_sha256, model_name, random_weights, profile (JSON),
            opset, code_version, exporter.
        files: name -> bytes and sha256.
        parity: rows of the comparison with torch at export time.
    """

    folder: Path
    profile: EngineProfile
    metadata: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    parity: tuple[ParityRow, ...]

    @property
    def model_path(self) -> Path:
        """The ONNX graph."""
        return self.folder / MODEL_NAME

    @property
    def sample_path(self) -> Path:
        """Images and what torch makes of them: an engine is accepted only if it agrees."""
        return self.folder / SAMPLE_NAME

    @property
    def opset(self) -> int:
        """Version of the ONNX operators."""
        return int(self.metadata["opset"])

    @property
    def onnx_sha256(self) -> str:
        """One hash for graph and weights."""
        names = [name for name in (MODEL_NAME, DATA_NAME) if name in self.files]
        return bytes_sha256("".join(self.files[name]["sha256"] for name in names).encode())

    def verify(self) -> None:
        """Compares every file with the manifest.

        Raises:
            EngineError: ``missing``, ``truncated`` or ``tampered``.
        """
        check_manifest(self.folder, self.files)


def exports_home() -> Path:
    """The folder of exports, unless another one is named."""
    return user_cache() / "exports"


def read_exported(folder: Path) -> ExportedModel:
    """The export in ``folder``.

    Raises:
        EngineError: there is none, or its manifest is damaged.
    """
    content = read_manifest(folder / MANIFEST_NAME)
    try:
        metadata = {str(key): str(value) for key, value in content["metadata"].items()}
        files = {
            str(name): {"bytes": int(f["bytes"]), "sha256": str(f["sha256"])} for name, f in content["files"].items()
        }
        exported = ExportedModel(
            folder=folder,
            profile=EngineProfile.from_json(json.loads(metadata["profile"])),
            metadata=metadata,
            files=files,
            parity=tuple(ParityRow(**row) for row in content["parity"]),
        )
        if not {MODEL_NAME, SAMPLE_NAME} <= set(files) or not metadata["model_sha256"] or exported.opset < 1:
            raise KeyError(MODEL_NAME)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigurationError) as error:
        raise EngineError(
            "truncated", f"{folder / MANIFEST_NAME} is not the manifest of an export ({error}); export again."
        ) from error
    return exported


def export_folders(parent: Path) -> list[Path]:
    """The folders below ``parent`` that hold an export, by name; not those that are being written."""
    found = sorted(manifest.parent for manifest in parent.glob(f"*/{MANIFEST_NAME}"))
    # An export that was being replaced when the process ended is the present one.
    return [folder for folder in found if not is_temporary(folder.name) or recovered(folder.with_suffix("")) == folder]


def find_exported(parent: Path, *, model_sha256: str) -> tuple[list[ExportedModel], list[str]]:
    """The exports below ``parent`` that were made from these weights, and why others were passed over."""
    found: list[ExportedModel] = []
    passed_over: list[str] = []
    for folder in export_folders(parent):
        try:
            exported = read_exported(folder)
        except EngineError as error:
            passed_over.append(f"{folder.name}: {error}")
            continue
        if exported.metadata["model_sha256"] != model_sha256:
            theirs = f"{exported.metadata.get('model_name', '?')} ({exported.metadata['model_sha256'][:12]})"
            passed_over.append(f"{folder.name} was exported from other weights: {theirs}")
        else:
            found.append(exported)
    return found, passed_over
