"""The loop that every stage runs: accumulate, clip, step, log, save, and resume exactly where the run was stopped.

A resumed run gives the same weights as an uninterrupted one, bit by bit on one machine: the data of a step, its
learning rates and its random numbers are functions of the step's number and the seed, and a saved state holds the
weights and the optimiser, which are all that depends on earlier steps.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from spatial_mllm_ros.errors import ConfigurationError, TrainingError
from spatial_mllm_ros.training.config import OptimiserConfig, RunConfig
from spatial_mllm_ros.training.optimiser import make_optimisers, rate_factor, set_rates
from spatial_mllm_ros.training.run_folder import RunFolder, draw_losses, states_of, step_of

if TYPE_CHECKING:
    from accelerate import Accelerator

_LOG = logging.getLogger(__name__)
_SKIPPED_IN_A_ROW = 10
_STATE_FILE = "state.pt"
#: A file of this name in the run's folder ends the run after the current step.
STOP_FILE = "stop"


class Stage(Protocol):
    """What is trained, on what.

    Attributes:
        name: for the picture and the progress bar.
        objective: a module that returns named sums over a batch: ``loss``, which is minimised, and others for the log.
        sha256: what the data are, name -> hash.
    """

    name: str

    @property
    def objective(self) -> nn.Module:
        """See the class."""
        ...

    @property
    def sha256(self) -> Mapping[str, str]:
        """See the class."""
        ...

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The optimiser's parameter groups, see ``optimiser.parameter_groups``."""
        ...

    def batches(self, step: int, rank: int, ranks: int) -> Sequence[Any]:
        """The process's ``accumulate`` batches of optimiser step ``step``: always the same ones."""
        ...

    def weight(self, batch: Any) -> float:
        """The batch's weight: the sums over all batches of a step are divided by the sum of their weights."""
        ...

    def notes(self) -> Mapping[str, Any]:
        """What is logged beside the losses."""
        ...

    def after_step(self, step: int, total: int, model: nn.Module, accelerator: Accelerator) -> Mapping[str, Any]:
        """Measurements after ``step`` steps, for the same row of the log; {} if none are due."""
        ...


def open_accelerator(run: RunConfig) -> Accelerator:
    """The processes, devices and precision of a run, as its options and the launcher set them.

    Raises:
        ConfigurationError: accelerate is not installed, or CUDA is asked for and absent.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import GradientAccumulationPlugin
    except ImportError as error:
        raise ConfigurationError(
            "Training needs the package accelerate; install it with: pip install 'spatial-mllm-ros[train]'"
        ) from error
    cuda = torch.cuda.is_available()
    if run.device == "cuda" and not cuda:
        raise ConfigurationError("--run.device is cuda but this torch finds no CUDA device; use cpu or auto.")
    if run.threads:
        torch.set_num_threads(run.threads)
    on_cpu = run.device == "cpu" or not cuda
    half = run.precision == "bf16" or (run.precision == "auto" and not on_cpu)
    accumulation = GradientAccumulationPlugin(num_steps=run.accumulate, sync_with_dataloader=False)
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if half else "no", gradient_accumulation_plugin=accumulation)


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds only a part of the weights (DeepSpeed, FSDP)."""
    return accelerator.distributed_type.value in ("DEEPSPEED", "FSDP")


def train(
    stage: Stage,
    *,
    run: RunConfig,
    optimiser_config: OptimiserConfig,
    total: int,
    folder: RunFolder | None,
    accelerator: Accelerator,
) -> nn.Module:
    """Trains to ``total`` optimiser steps, from the newest state if the run is resumed.

    A file named ``stop`` in the run's folder ends the run after the current step, and a state is saved; the caller then
    writes the checkpoint as it is. When the file is removed, the run can be resumed.

    Args:
        folder: the run's folder; None in all processes but the first, which write nothing.

    Returns:
        the objective as accelerate wrapped it.

    Raises:
        TrainingError: ten gradients in a row were not finite.
    """
    if optimiser_config.matrices == "muon" and is_sharded(accelerator):
        raise ConfigurationError(
            "--optimiser.matrices muon needs whole matrices, and DeepSpeed and FSDP give each process a part of them; "
            "use adamw, or launch without them."
        )
    optimisers = make_optimisers(stage.groups(optimiser_config.weight_decay), optimiser_config)
    _tell_deepspeed(accelerator, run, optimiser_config)
    model, *optimisers = accelerator.prepare(stage.objective, *optimisers)
    start = _resume(model, optimisers, run.out, accelerator)
    if folder is not None:
        folder.rewind(start)
    skipped = 0
    bar = tqdm(range(start, total), initial=start, total=total, desc=stage.name, disable=folder is None)
    for step in bar:
        began_s = time.monotonic()
        seed_everything(run.seed, step, accelerator.process_index)
        rates = set_rates(optimisers, rate_factor(step, total, optimiser_config))
        sums, norm = _step(stage, step, model, optimisers, optimiser_config.clip, accelerator)
        skipped = 0 if math.isfinite(norm) else skipped + 1
        if skipped == _SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"The gradients of {_SKIPPED_IN_A_ROW} steps in a row up to step {step + 1} were not finite; lower the "
                "learning rates, or use --run.precision float32."
            )
        done = step + 1
        stopped = _told_to_stop(run.out, accelerator)
        seconds = time.monotonic() - began_s
        measured = stage.after_step(done, total, model, accelerator)
        if folder is not None:
            rated = {f"lr_{part}": rate for part, rate in rates.items()}
            row = {"step": done, **sums, "gradient_norm": norm, **rated, **stage.notes(), **measured}
            folder.log({**row, "seconds": round(seconds, 4)})
            bar.set_postfix(loss=f"{sums['loss']:.4f}")
        if done == total or stopped or (run.save_every and done % run.save_every == 0):
            _save(model, optimisers, done, folder, run.keep_states, accelerator)
            if folder is not None:
                draw_losses(folder.metrics(), folder.path / "loss.png", title=f"{stage.name}: {done} steps")
        if stopped:
            _LOG.warning("Stopped after step %d of %d: the run's folder holds a file named %s.", done, total, STOP_FILE)
            break
    return model


def _told_to_stop(out: Path, accelerator: Accelerator) -> bool:
    """Whether the first process sees the file; all processes must end at the same step."""
    seen = (out / STOP_FILE).exists()
    if accelerator.num_processes == 1:
        return seen
    return int(accelerator.reduce(torch.tensor(int(seen), device=accelerator.device), "max")) > 0


def _tell_deepspeed(accelerator: Accelerator, run: RunConfig, optimiser_config: OptimiserConfig) -> None:
    """DeepSpeed accumulates and clips by itself: its configuration gets the numbers of the run."""
    plugin = accelerator.state.deepspeed_plugin if accelerator.distributed_type.value == "DEEPSPEED" else None
    if plugin is not None:
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = run.batch_size
        plugin.deepspeed_config["gradient_accumulation_steps"] = run.accumulate
        plugin.deepspeed_config["gradient_clipping"] = optimiser_config.clip


def _step(
    stage: Stage,
    step: int,
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    clip: float,
    accelerator: Accelerator,
) -> tuple[dict[str, float], float]:
    """One optimiser step: the sums over all batches, divided by their weight, and the norm of the gradient."""
    batches = stage.batches(step, accelerator.process_index, accelerator.num_processes)
    weight = torch.tensor(float(sum(stage.weight(batch) for batch in batches)), device=accelerator.device)
    weight = accelerator.reduce(weight, "sum")
    # accelerate divides by the number of batches, and distributed training averages over the processes.
    scale = len(batches) * accelerator.num_processes / weight
    sums: dict[str, torch.Tensor] = {}
    norm = float("nan")
    for batch in batches:
        with accelerator.accumulate(model):
            terms = model(batch)
            accelerator.backward(terms["loss"] * scale)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            if accelerator.sync_gradients:
                norm = _clip(model, clip, accelerator)
                for optimiser in optimisers:
                    if math.isfinite(norm):
                        optimiser.step()
                    optimiser.zero_grad()
    total = {name: float(accelerator.reduce(value, "sum") / weight) for name, value in sums.items()}
    return total, norm


def _clip(model: nn.Module, clip: float, accelerator: Accelerator) -> float:
    norm = accelerator.clip_grad_norm_(model.parameters(), clip or float("inf"))
    # DeepSpeed clips and steps inside backward, and may have no norm to tell before its first step.
    return 0.0 if norm is None else float(norm)


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Sets every random generator from the seed, the step and the process."""
    mixed = int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(mixed)


def _save(
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    step: int,
    folder: RunFolder | None,
    keep: int,
    accelerator: Accelerator,
) -> None:
    new_state = contextlib.nullcontext(Path()) if folder is None else folder.new_state(step, keep=keep)
    with new_state as part:
        if is_sharded(accelerator):
            accelerator.save_state(_from_first_process([str(part)])[0])
            accelerator.wait_for_everyone()
        elif folder is not None:
            trained = {
                name: value.detach() for name, value in trained_parameters(accelerator.unwrap_model(model)).items()
            }
            states = [optimiser.state_dict() for optimiser in optimisers]
            torch.save({"step": step, "trained": trained, "optimisers": states}, part / _STATE_FILE)
    accelerator.wait_for_everyone()


def _resume(model: nn.Module, optimisers: Sequence[torch.optim.Optimizer], out: Path, accelerator: Accelerator) -> int:
    """Loads the newest state under ``out`` if there is one; returns after how many steps it was saved."""
    states = states_of(out)
    if not states:
        return 0
    state_folder = states[-1]
    if is_sharded(accelerator):
        accelerator.load_state(str(state_folder))
        return step_of(state_folder)
    state = torch.load(state_folder / _STATE_FILE, map_location="cpu", weights_only=True)
    own = trained_parameters(accelerator.unwrap_model(model))
    if set(own) != set(state["trained"]):
        raise TrainingError(f"{state_folder} holds other trained parameters than this run; start a new run.")
    with torch.no_grad():
        for name, value in state["trained"].items():
            own[name].copy_(value)
    for optimiser, past in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(past)
    _LOG.info("Resuming after step %d.", state["step"])
    return int(state["step"])


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that requires gradients."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _from_first_process(values: list[str]) -> list[str]:
    from accelerate.utils import broadcast_object_list

    shared: list[str] = broadcast_object_list(values)
    return shared
