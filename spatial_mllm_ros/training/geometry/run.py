"""Trains VGGT with all its heads on exact geometry, as a first stage, or to adapt it to a camera and its scale.

Simplified against VGGT's own training: no tracking, no augmentation of colours or aspect ratios, one image size in a
run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spatial_mllm_ros.models.checkpoints.files import read_checkpoint
from spatial_mllm_ros.models.checkpoints.layouts import Layout, layout_of
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm, load_vggt
from spatial_mllm_ros.models.vggt import VGGT
from spatial_mllm_ros.storage import sha256_of
from spatial_mllm_ros.training.finished import save_finished
from spatial_mllm_ros.training.geometry.batch import GeometryBatch, GeometryBatches
from spatial_mllm_ros.training.geometry.config import GeometryConfig
from spatial_mllm_ros.training.geometry.loss import GeometryObjective
from spatial_mllm_ros.training.geometry.metrics import measure_geometry
from spatial_mllm_ros.training.geometry.recordings import RecordedBatches
from spatial_mllm_ros.training.geometry.rooms import RoomGeometryBatches
from spatial_mllm_ros.training.loop import is_sharded, open_accelerator
from spatial_mllm_ros.training.optimiser import parameter_groups
from spatial_mllm_ros.training.run import open_bad_samples, run_stage
from spatial_mllm_ros.training.run_folder import BadSamples

if TYPE_CHECKING:
    from accelerate import Accelerator

_PART = "vggt"
_NEVER_USED = "mask_token"  # of DINOv2's pre-training
#: Optimiser steps of a run without ``run.steps``.
DEFAULT_STEPS = 10_000

MakeBatches = Callable[[GeometryConfig, BadSamples], GeometryBatches]


def batches_of(config: GeometryConfig, bad: BadSamples) -> GeometryBatches:
    """Batches from the recordings that ``config.data`` names, or from generated rooms if it names none."""
    size, seed = config.run.batch_size, config.run.seed
    if config.data.recordings:
        return RecordedBatches(config.data, batch_size=size, seed=seed, bad=bad)
    return RoomGeometryBatches(config.data, batch_size=size, seed=seed)


def run_geometry(config: GeometryConfig, make_batches: MakeBatches = batches_of) -> Path:
    """Runs or resumes a training; returns the folder of the finished checkpoint.

    Args:
        make_batches: makes the source of batches. The data have no end, so ``run.epochs`` is ignored: without
            ``run.steps`` the run has ``DEFAULT_STEPS`` steps.

    Raises:
        CheckpointError: the checkpoint to start from cannot be loaded.
        TrainingError: no usable data, a run folder of another run, or gradients that are not finite.
    """
    accelerator = open_accelerator(config.run)
    source = Path(config.model.checkpoint)
    files = read_checkpoint(source, config_required=False)
    alone = layout_of(files.shapes) is Layout.VGGT
    vggt = load_vggt(source) if alone else load_spatial_mllm(source).model.spatial_encoder
    for name, parameter in vggt.named_parameters():
        parameter.data = parameter.data.float()
        chosen = config.model.trained == "all" or not name.startswith("aggregator.")
        parameter.requires_grad_(chosen and not name.endswith(_NEVER_USED))
    bad = open_bad_samples(config.run, accelerator)
    stage = GeometryStage(vggt.train(), config, make_batches(config, bad))
    description = {"start": {"name": source.resolve().name, "sha256": sha256_of(*files.files)}}
    total = config.run.steps or DEFAULT_STEPS
    model = run_stage(stage, config, accelerator, total=total, description=description)
    return save_finished(
        config.run.out / "checkpoint",
        model,
        accelerator,
        place=("vggt.", "" if alone else "model.spatial_encoder."),
        source=source,
        save_dtype=config.run.save_dtype,
        config_changes={"spatial_unit_m": stage.unit_m},
    )


class GeometryStage:
    """Data, objective and parameter groups of the stage; see ``loop.Stage``."""

    name = "geometry"

    def __init__(self, vggt: VGGT, config: GeometryConfig, data: GeometryBatches) -> None:
        self._objective = GeometryObjective(vggt, config.loss)
        self._vggt = vggt
        self._config = config
        self._data = data

    @property
    def objective(self) -> nn.Module:
        """See loop.Stage."""
        return self._objective

    @property
    def sha256(self) -> Mapping[str, str]:
        """See loop.Stage."""
        return self._data.sha256

    @property
    def unit_m(self) -> float | None:
        """The length in metres that is 1 in the model; None if the model has no metric scale."""
        return self._config.loss.unit_m if self._config.loss.scale == "metric" else None

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """See loop.Stage."""
        named = ((_PART, name, parameter) for name, parameter in self._vggt.named_parameters())
        rates = {_PART: self._config.model.learning_rate}
        return parameter_groups((item for item in named if item[2].requires_grad), rates, weight_decay)

    def batches(self, step: int, rank: int, ranks: int) -> list[GeometryBatch]:
        """See loop.Stage."""
        accumulate = self._config.run.accumulate
        start = (step * ranks + rank) * accumulate
        return [self._data.batch(index) for index in range(start, start + accumulate)]

    def weight(self, batch: GeometryBatch) -> float:
        """See loop.Stage."""
        return 1.0

    def notes(self) -> dict[str, Any]:
        """See loop.Stage."""
        return {"bad_samples": self._data.rejected}

    def after_step(self, step: int, total: int, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Errors on held-out samples, if a measurement is due; see ``measure_geometry``."""
        every = self._config.loss.measure_every
        due = step == total or (every and step % every == 0)
        # A process that holds a part of the weights cannot run the model by itself.
        if not due or not accelerator.is_main_process or is_sharded(accelerator):
            return {}
        held_out = self._data.held_out(self._config.loss.measure_samples)
        with torch.autocast(accelerator.device.type, enabled=False):
            return measure_geometry(self._vggt, held_out, unit_m=self.unit_m)
