"""The warm context: what a model has made of the evidence set before anyone asks, and when it is made anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spatial_mllm_ros.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class WarmContext:
    """Frames as a model has read them: any number of questions may follow, each at the cost of its own tokens.

    Attributes:
        epoch: of the scene; a context never outlives it.
        stamps_ns: the frames, in time order.
        model_sha256: of the weights that read them.
        built_ns: when it was finished, steady clock.
        prefix: what the model keeps of them (for Spatial-MLLM a ``models.prompt_cache.PromptPrefix``); only the model
            that made it reads it.
        nbytes: how much memory that takes.
        left_out: frames of the evidence set that it was made without, for lack of time or memory.
    """

    epoch: int
    stamps_ns: tuple[int, ...]
    model_sha256: str
    built_ns: int
    prefix: Any
    nbytes: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class ContextConfig:
    """When the context is made anew, and when it is good enough for a question.

    Attributes:
        refresh: keep it warm in the background; False: make it when a question needs it.
        refresh_share: share of the evidence set that must have changed before it is made anew.
        refresh_interval_s: least time from the end of one refresh to the start of the next.
        max_age_s: from this age on any change of the evidence set is enough.
        usable_share: a question takes the context that is there if no larger share of the evidence set has changed;
            otherwise a new one is made for it.
        cache_bytes: bound of the tokens kept per frame and frame pair.
    """

    refresh: bool = True
    refresh_share: float = 0.25
    refresh_interval_s: float = 2.0
    max_age_s: float = 30.0
    usable_share: float = 0.5
    cache_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        wrong = [
            f"ContextConfig.{name} is {getattr(self, name)!r}; it must be from 0 to 1."
            for name in ("refresh_share", "usable_share")
            if not 0 <= getattr(self, name) <= 1
        ]
        wrong += [
            f"ContextConfig.{name} is {getattr(self, name)!r}; it must be finite and at least 0."
            for name in ("refresh_interval_s", "max_age_s")
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0)
        ]
        if self.cache_bytes < 0:
            wrong.append(f"ContextConfig.cache_bytes is {self.cache_bytes!r}; it must be at least 0 (0: no cache).")
        if wrong:
            raise ConfigurationError(" ".join(wrong))


def changed_share(made_of: Sequence[int], wanted: Sequence[int]) -> float:
    """How much of an evidence set has changed, 0 to 1: frames that are not in both, over the larger set's size."""
    larger = max(len(made_of), len(wanted))
    return 1 - len(set(made_of) & set(wanted)) / larger if larger else 0.0
