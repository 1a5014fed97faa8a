"""`spatial_mllm engine ...`: export, build, list, verify, prune, budget."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spatial_mllm_ros.engines.cache import CachedEngine, EngineCache
from spatial_mllm_ros.engines.cost_model import DEVICES, SHARE_OF_MEMORY, budget_table
from spatial_mllm_ros.engines.exported import ExportedModel, export_folders, exports_home, read_exported
from spatial_mllm_ros.engines.parity import parity_table
from spatial_mllm_ros.engines.profile import EngineProfile, Precision, ProfileKind
from spatial_mllm_ros.engines.tensorrt_engines import TensorRtHere, best_for, check_against_sample, open_tensorrt
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.checkpoints.bundled import bundled_checkpoint
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_encoder
from spatial_mllm_ros.models.vggt import VggtConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportPlan:
    """An export plan, as the files in ``engines/`` hold it: version of the operators, and profiles."""

    opset: int
    profiles: tuple[EngineProfile, ...]

    @classmethod
    def read(cls, path: Path) -> ExportPlan:
        """From YAML: ``opset``, ``profiles`` (a list of the fields of ``EngineProfile``).

        Raises:
            ConfigurationError: it cannot be read, or is no such plan.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls(int(content["opset"]), tuple(EngineProfile.from_json(entry) for entry in content["profiles"]))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{path} is not an export plan (opset, profiles): {error}") from error


def export(checkpoint: str, plan: ExportPlan, out: Path | None) -> int:
    """Exports every profile of ``plan`` from a checkpoint folder ("": the bundled one)."""
    from spatial_mllm_ros.engines.export import ExportOptions, export_profile

    parent = out or exports_home()
    for profile in plan.profiles:
        # Loaded again for each, because an export converts the model to its precision.
        vggt, identity = _load(checkpoint)
        folder = parent / f"{identity.sha256[:12]}-{profile.name}-opset{plan.opset}"
        exported = export_profile(vggt, identity, profile, folder, ExportOptions(opset=plan.opset))
        megabytes = sum(entry["bytes"] for entry in exported.files.values()) / 1e6
        _say(f"{exported.folder} ({megabytes:.1f} MB)")
        _say(parity_table(exported.parity).rstrip())
    return 0


def build(exports: Sequence[Path], cache_folder: Path | None) -> int:
    """Builds the TensorRT engines of exports (all, if none is named) for this GPU and compares them with torch."""
    found = [read_exported(path) for path in exports] or _all_exports()
    here = TensorRtHere.find()
    _say(f"TensorRT {here.info.version} on {here.gpu.name} (SM {here.gpu.sm})")
    cache = EngineCache(cache_folder)
    usable = best_for(here, found)
    for exported in usable:
        backend = open_tensorrt(here, exported, cache, may_build=True)
        _say(f"{here.key(exported).folder_name}: {backend.device_bytes / 2**20:.0f} MiB of buffers beside the weights")
        _say(parity_table(check_against_sample(backend, exported)).rstrip())
        backend.close()
    for exported in found:
        if exported not in usable:
            _say(f"{exported.folder.name}: not built; another export of this profile is used, or opset 20 is needed.")
    return 0 if usable else 1


def show(cache_folder: Path | None, *, verify: bool) -> int:
    """Lists exports and engines; with ``verify`` every byte is compared with the manifests. 1 if one is not right."""
    wrong = 0
    for folder in export_folders(exports_home()):
        try:
            exported = read_exported(folder)
            if verify:
                exported.verify()
            random = ", random weights" if exported.metadata.get("random_weights") == "true" else ""
            line = f"ok: {exported.profile.name}, opset {exported.opset}, {exported.metadata['model_name']}{random}"
        except EngineError as error:
            wrong += 1
            line = f"{error.cause}: {error}"
        _say(f"export {folder}\n  {line}")
    for engine in EngineCache(cache_folder).engines(verify=verify):
        wrong += bool(engine.problem)
        made_for = f"{engine.key['runtime']}, {engine.key['gpu']} (SM {engine.key['sm']})" if engine.key else ""
        _say(f"engine {engine.folder}\n  {engine.problem or f'ok: {made_for}'}, {engine.size_bytes / 1e6:.1f} MB")
    return 1 if wrong else 0


def prune(cache_folder: Path | None, *, everything: bool, dry_run: bool) -> int:
    """Removes engines that nothing here can use: damaged, of another GPU, runtime or driver, or without an export."""
    cache = EngineCache(cache_folder)
    usable: set[str] = set()
    if not everything:
        here = TensorRtHere.find()  # it tells which engines can be used here
        usable = {here.key(exported).folder_name for exported in _all_exports(missing_is_an_error=False)}

    def keep(engine: CachedEngine) -> bool:
        return engine.folder.name in usable and not engine.problem

    removed = cache.prune(keep=keep, dry_run=dry_run)
    for engine in removed:
        _say(f"{'would remove' if dry_run else 'removed'} {engine.folder} ({engine.size_bytes / 1e6:.1f} MB)")
    _say(f"{len(removed)} engines, {sum(engine.size_bytes for engine in removed) / 1e6:.1f} MB")
    return 0


def budget() -> int:
    """Prints what VGGT-1B costs per number of frames and precision; computed, not measured."""
    config = VggtConfig.vggt_1b(point_head=False)
    profiles = [
        EngineProfile(ProfileKind(kind), width, height, 2, 8, 128, Precision(precision))
        for kind, width, height in (("geometry", 518, 392), ("geometry", 518, 294), ("fusion", 644, 476))
        for precision in ("bf16", "fp32")
    ]
    _say(budget_table(config, profiles, (2, 8, 16, 32)).rstrip())
    assumed = "; ".join(
        f"{d.name}: {d.effective_tflops:g} TFLOP/s, {d.bandwidth_gb_s:g} GB/s, {100 * SHARE_OF_MEMORY:.0f} % of "
        f"{d.memory_gib:g} GiB"
        for d in DEVICES
    )
    _say(f"Computed from the sizes, not measured. Assumed: {assumed}.")
    return 0


def _load(checkpoint: str) -> Any:
    return load_spatial_encoder(Path(checkpoint) if checkpoint else bundled_checkpoint())


def _all_exports(*, missing_is_an_error: bool = True) -> list[ExportedModel]:
    found = [read_exported(folder) for folder in export_folders(exports_home())]
    if not found and missing_is_an_error:
        raise EngineError("missing", f"There is no export in {exports_home()}; run spatial_mllm engine export first.")
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
