"""What the runs of all stages share: they open their folder, write down what is run on what, and run the loop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from spatial_mllm_ros.training.config import RunConfig, StageConfig
from spatial_mllm_ros.training.loop import Stage, train
from spatial_mllm_ros.training.run_folder import BadSamples, RunFolder, refuse_a_run

if TYPE_CHECKING:
    from accelerate import Accelerator


def open_bad_samples(run: RunConfig, accelerator: Accelerator) -> BadSamples:
    """Makes the run's folder and opens the process's file of bad samples in it.

    Raises:
        TrainingError: the folder holds a run that is not to be resumed.
    """
    first = accelerator.is_main_process
    if first:
        refuse_a_run(run.out, resume=run.resume)
    run.out.mkdir(parents=True, exist_ok=True)
    return BadSamples(run.out / ("bad_samples.jsonl" if first else f"bad_samples.{accelerator.process_index}.jsonl"))


def run_stage(
    stage: Stage, config: StageConfig, accelerator: Accelerator, *, total: int, description: Mapping[str, Any]
) -> nn.Module:
    """Runs or resumes a stage for ``total`` optimiser steps; returns the trained objective.

    Args:
        config: a dataclass; run.json holds it.
        description: what run.json says beside the stage's name, its configuration and the hashes of its data.

    Raises:
        TrainingError: the folder holds another run, or gradients are not finite.
    """
    folder = None
    if accelerator.is_main_process:
        what = {"stage": stage.name, "config": as_plain(config), "data": dict(stage.sha256)}
        folder = RunFolder(config.run.out, {**what, **description}, resume=config.run.resume)
    accelerator.wait_for_everyone()
    return train(
        stage,
        run=config.run,
        optimiser_config=config.optimiser,
        total=total,
        folder=folder,
        accelerator=accelerator,
    )


def as_plain(config: StageConfig) -> dict[str, Any]:
    """A configuration as nested dictionaries of plain values, which YAML and JSON can hold."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))  # type: ignore[call-overload]
    return plain
