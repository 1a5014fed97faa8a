"""Optimisers over named groups, and the learning rate as a function of the step: no schedule has to be saved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from spatial_mllm_ros.training.config import OptimiserConfig

_NO_DECAY = ("_token", "_tokens", "pos_embed", "embed_pose.weight")
# Not for Muon: matrices at the ends of a network, whose rows stand for single words, names or numbers and would all get
# updates of the same size; and the connector's matrices, which are wide and see few tokens, so that Muon's step for
# them would take longer than the rest of a training step.
_NOT_HIDDEN = ("embed_tokens.", "lm_head.", "token_head.", "mention_head.", "pose_branch.fc2.", "connector.")


def rate_factor(step: int, total: int, config: OptimiserConfig) -> float:
    """Learning rate of step ``step`` (from 0) of ``total``, divided by its peak: linear warm-up, then a cosine."""
    warm_up = math.ceil(config.warm_up * total)
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - warm_up)
    return config.final_factor + (1 - config.final_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(
    named: Iterable[tuple[str, str, nn.Parameter]], rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Optimiser groups of (part, name, parameter): one per part, decay and kind, with the peak rate as ``peak_lr``.

    Norms, biases and learned tokens have no weight decay. ``hidden`` is true for groups of matrices between layers.
    """
    groups: dict[tuple[str, bool, bool], dict[str, Any]] = {}
    for part, name, parameter in named:
        decayed = parameter.ndim > 1 and not name.endswith(_NO_DECAY)
        hidden = decayed and parameter.ndim == 2 and not any(end in name for end in _NOT_HIDDEN)
        group = groups.setdefault(
            (part, decayed, hidden),
            {
                "params": [],
                "part": part,
                "hidden": hidden,
                "peak_lr": rates[part],
                "lr": rates[part],
                "weight_decay": weight_decay if decayed else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def make_optimisers(groups: list[dict[str, Any]], config: OptimiserConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of ``parameter_groups``: AdamW alone, or Muon and AdamW, as ``config.matrices`` says."""
    muon = config.matrices == "muon"
    hidden = [group for group in groups if muon and group["hidden"]]
    others = [group for group in groups if not (muon and group["hidden"])]
    optimisers: list[torch.optim.Optimizer] = []
    if others:
        optimisers.append(torch.optim.AdamW(others, betas=(config.beta1, config.beta2)))
    if hidden:
        faster = [{**group, "peak_lr": config.muon_factor * group["peak_lr"]} for group in hidden]
        optimisers.append(torch.optim.Muon(faster, adjust_lr_fn="match_rms_adamw"))
    return optimisers


def set_rates(optimisers: Sequence[torch.optim.Optimizer], factor: float) -> dict[str, float]:
    """Sets every group's rate to its peak times ``factor``; returns part -> rate."""
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    for group in groups:
        group["lr"] = group["peak_lr"] * factor
    return {group["part"]: group["lr"] for group in groups}
