"""AdamW over named groups, and the learning rate as a plain function of the step: nothing of it needs to be stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from spatial_mllm_ros.training.config import OptimiserConfig

_NO_DECAY = ("_token", "_tokens", "pos_embed", "embed_pose.weight")


def rate_factor(step: int, total: int, config: OptimiserConfig) -> float:
    """Learning rate of optimiser step ``step`` (from 0) of ``total``, over its peak: linear warm-up, then a cosine."""
    warm_up = math.ceil(config.warm_up * total)
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - warm_up)
    return config.final_factor + (1 - config.final_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(
    named: Iterable[tuple[str, str, nn.Parameter]], rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Optimiser groups of (part, name, parameter): one per part and decay, each with its peak rate as ``peak_lr``.

    Norms, biases and learned tokens are not decayed.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for part, name, parameter in named:
        decayed = parameter.ndim > 1 and not name.endswith(_NO_DECAY)
        group = groups.setdefault(
            (part, decayed),
            {
                "params": [],
                "part": part,
                "peak_lr": rates[part],
                "lr": rates[part],
                "weight_decay": weight_decay if decayed else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def adamw(groups: list[dict[str, Any]], config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over ``parameter_groups``."""
    return torch.optim.AdamW(groups, betas=(config.beta1, config.beta2))


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Sets every group's rate to its peak times ``factor``; returns part -> rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return {group["part"]: group["lr"] for group in optimiser.param_groups}
