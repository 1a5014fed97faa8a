"""The options that every stage of training has. The command line is made of them, so nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from spatial_mllm_ros.errors import ConfigurationError


def check_field(owner: object, name: str, valid: bool, allowed: str) -> None:
    """Refuses the value of a field of a configuration.

    Raises:
        ConfigurationError: ``valid`` is false; the message names field, value and what is ``allowed``.
    """
    if not valid:
        kind, value = type(owner).__name__, getattr(owner, name)
        raise ConfigurationError(f"{kind}.{name} is {value!r}; it must be {allowed}.")


@dataclass(frozen=True)
class RunConfig:
    """How long the run is, where it is written, and on what it runs.

    Attributes:
        out: folder of the run: configuration, losses, states, the finished checkpoint.
        resume: continue the run in that folder from its last state.
        epochs: passes over the data; ignored if steps are given.
        steps: optimiser steps; 0 computes them from the epochs.
        batch_size: samples per device and forward pass.
        accumulate: forward passes per optimiser step.
        seed: decides the order of the data and everything random.
        device: auto takes CUDA if there is a CUDA device.
        precision: bf16 keeps the trained weights in float32 and computes in bfloat16; auto is bf16 on CUDA only.
        threads: CPU threads; 0 leaves torch's default.
        save_every: optimiser steps between states to resume from; 0 writes one state at the end only.
        keep_states: how many states are kept.
        save_dtype: type of the finished checkpoint's weights; source keeps the type of the checkpoint at the start.
    """

    out: Path
    resume: bool = False
    epochs: float = 1.0
    steps: int = 0
    batch_size: int = 1
    accumulate: int = 8
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    threads: int = 0
    save_every: int = 200
    keep_states: int = 2
    save_dtype: Literal["source", "float32", "float16", "bfloat16"] = "source"

    def __post_init__(self) -> None:
        check_field(self, "epochs", self.epochs > 0, "above 0")
        for name in ("steps", "threads", "save_every", "seed"):
            check_field(self, name, getattr(self, name) >= 0, "0 or above")
        for name in ("batch_size", "accumulate", "keep_states"):
            check_field(self, name, getattr(self, name) >= 1, "at least 1")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, or Muon for hidden matrices and AdamW for the rest, with a linear warm-up and a cosine to the end.

    Attributes:
        matrices: what steps the matrices between layers. muon (Jordan et al. 2024, with the step sizes of Liu et al.,
            arXiv 2502.16982, so that learning rates mean about the same as for AdamW) needs whole matrices, so it works
            with neither DeepSpeed nor FSDP.
        muon_factor: Muon's learning rates divided by those of AdamW.
        weight_decay: weight decay of matrices; norms, biases and single tokens have none.
        beta1: decay of AdamW's mean of gradients.
        beta2: decay of AdamW's mean of squared gradients.
        clip: largest norm of the whole gradient; 0 does not clip.
        warm_up: share of the steps in which the learning rates rise.
        final_factor: learning rates at the end divided by their peak.
    """

    matrices: Literal["adamw", "muon"] = "adamw"
    muon_factor: float = 1.0
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 1.0
    warm_up: float = 0.03
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("weight_decay", "clip"):
            check_field(self, name, getattr(self, name) >= 0, "0 or above")
        for name in ("beta1", "beta2", "warm_up"):
            check_field(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        check_field(self, "muon_factor", self.muon_factor > 0, "above 0")
        check_field(self, "final_factor", 0 <= self.final_factor <= 1, "in [0, 1]")


class StageConfig(Protocol):
    """What the configurations of all stages have in common: a frozen dataclass of groups with these two among them."""

    @property
    def run(self) -> RunConfig:
        """How long the run is, where it is written, and on what it runs."""
        ...

    @property
    def optimiser(self) -> OptimiserConfig:
        """What steps the weights."""
        ...
