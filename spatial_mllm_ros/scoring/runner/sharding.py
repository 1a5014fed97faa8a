"""Which part of the questions this process answers, as `accelerate launch` and `torchrun` tell it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scoring.datasets.question import BenchmarkQuestion


@dataclass(frozen=True)
class Shard:
    """Process number ``rank`` of ``world``, and number ``local_rank`` on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ConfigurationError(f"RANK is {self.rank} and WORLD_SIZE {self.world}; it must be 0 <= RANK < size.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Shard:
        """From RANK, WORLD_SIZE and LOCAL_RANK; one process alone where they are not set.

        Raises:
            ConfigurationError: one of them is not a number, or the rank is not below the size.
        """
        values = os.environ if environment is None else environment
        numbers = {}
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
            text = values.get(name, default)
            if not text.isdigit():
                raise ConfigurationError(f"{name} is {text!r}; launchers such as torchrun set it to a whole number.")
            numbers[name] = int(text)
        return cls(numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"])

    def part_of(self, questions: Sequence[BenchmarkQuestion]) -> list[list[BenchmarkQuestion]]:
        """The questions of this process, those about one clip together; clips go round by their first question."""
        clips: dict[str, list[BenchmarkQuestion]] = {}
        for question in questions:
            clips.setdefault(str(question.video), []).append(question)
        return list(clips.values())[self.rank :: self.world]
