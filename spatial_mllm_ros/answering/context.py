"""The visual context of a question, and the settings that say when the next one is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spatial_mllm_ros.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class VisualContext:
    """Frames as a model has read them: any number of questions may follow, each at the cost of its own tokens.

    Attributes:
        epoch: of the scene; a context never outlives it.
        stamps_ns: of the frames, in time order.
        model_sha256: of the weights that read them.
        built_ns: when it was finished, steady clock.
        prefix: the model's state after the frames (for Spatial-MLLM a ``models.prefill.prompt_cache.PromptPrefix``);
            only the model that made it reads it.
        nbytes: memory that it takes.
        left_out: frames of the evidence set that it lacks, for lack of time or memory.
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
    """When a new context is made, and which context may answer a question.

    Attributes:
        refresh: True makes contexts in the background; False makes them when a question needs one.
        refresh_changed_fraction: fraction of the evidence set that must have changed before a new context is made.
        refresh_interval_s: least time from the end of one refresh to the start of the next.
        max_age_s: from this age on, any change of the evidence set is enough for a refresh.
        max_changed_fraction: a question uses the present context if at most this fraction of the evidence set has
            changed; otherwise a new context is made for the question.
        cache_bytes: bound of the tokens kept per frame and frame pair.
    """

    refresh: bool = True
    refresh_changed_fraction: float = 0.25
    refresh_interval_s: float = 2.0
    max_age_s: float = 30.0
    max_changed_fraction: float = 0.5
    cache_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        wrong = [
            f"ContextConfig.{name} is {getattr(self, name)!r}; it must be from 0 to 1."
            for name in ("refresh_changed_fraction", "max_changed_fraction")
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


def changed_fraction(made_of: Sequence[int], wanted: Sequence[int]) -> float:
    """How much of an evidence set has changed, 0 to 1: frames that are not in both, over the larger set's size."""
    larger = max(len(made_of), len(wanted))
    return 1 - len(set(made_of) & set(wanted)) / larger if larger else 0.0
