"""Supervised fine-tuning of Spatial-MLLM on conversations about videos and images (arXiv 2505.23747, section 4.2).

Answers are learned token by token, each token counting the same; questions, system text and frames are not learned.
Simplified against the published recipe: no packing of samples about different videos, no LoRA.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.training.finished import save_finished
from spatial_mllm_ros.training.loop import open_accelerator
from spatial_mllm_ros.training.run import open_bad_samples, run_stage
from spatial_mllm_ros.training.sft.config import SftConfig
from spatial_mllm_ros.training.sft.model import SCALED, choose_trained, take_spatial_encoder
from spatial_mllm_ros.training.sft.stage import SftStage

_LOG = logging.getLogger(__name__)


def run_sft(config: SftConfig) -> Path:
    """Runs or resumes a training; returns the folder of the finished checkpoint.

    Raises:
        CheckpointError: the checkpoint to start from cannot be loaded.
        TrainingError: no usable data, a run folder of another run, or gradients that are not finite.
        ConfigurationError: a value is outside its range.
    """
    accelerator = open_accelerator(config.run)
    loaded = load_spatial_mllm(config.model.checkpoint)
    # The frozen parts need no float32: they get no small updates.
    half = accelerator.mixed_precision == "bf16"
    replaced = take_spatial_encoder(loaded.model, config.model.spatial_encoder)
    choose_trained(loaded.model, config.model.trained, frozen=torch.bfloat16 if half else torch.float32)
    if config.model.gradient_checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    bad = open_bad_samples(config.run, accelerator)
    with SftStage(loaded, config, bad) as stage:
        description = {
            "start": {"name": loaded.identity.name, "sha256": loaded.identity.sha256},
            "spatial_encoder": replaced.description if replaced else None,
            "samples": {"usable": stage.usable, "left_out": dict(bad.counts)},
        }
        total = config.run.steps or stage.steps_for(config.run.epochs, accelerator.num_processes)
        model = run_stage(stage, config, accelerator, total=total, description=description)
    if bad.total:
        _LOG.warning("%d samples were left out: %s; see %s.", bad.total, dict(bad.counts), bad.path)
    changed: tuple[str, ...] = ("model.model.spatial_encoder.",) if replaced else ()
    changed += SCALED if config.model.token_rms else ()
    return save_finished(
        config.run.out / "checkpoint",
        model,
        accelerator,
        place=("model.", ""),
        source=config.model.checkpoint,
        save_dtype=config.run.save_dtype,
        config_changes={"random_weights": None, **(replaced.config_changes if replaced else {})},
        replaced=changed,
    )
