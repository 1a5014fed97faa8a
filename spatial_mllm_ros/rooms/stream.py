"""An endless, repeatable stream of clips with their questions, to train on without files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.rooms.clips import Clip, ClipConfig, make_clips
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.rooms.world.world import SPLITS, split_seed
from spatial_mllm_ros.scene_questions.balance import AnswerBalancer
from spatial_mllm_ros.scene_questions.builder import candidate_questions
from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion


@dataclass(frozen=True)
class StreamConfig:
    """What a stream consists of.

    Attributes:
        split: a name of ``SPLITS``.
        worlds: worlds per batch. Every batch has new ones until all of the split have come; then they come again, with
            other walks.
        clip: how clips are taken.
        questions_per_type: most questions per world and type; 0: none (geometry training).
        types: types of questions.
        first_batch: number of the first batch; a run that was interrupted after N batches resumes with N.
    """

    split: str = "train"
    worlds: int = 4
    clip: ClipConfig = field(default_factory=ClipConfig)
    questions_per_type: int = 1
    types: tuple[QuestionType, ...] = tuple(QuestionType)
    first_batch: int = 0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigurationError(f"StreamConfig.split is {self.split!r}; use one of {', '.join(SPLITS)}.")
        if self.worlds < 1 or self.questions_per_type < 0 or self.first_batch < 0:
            raise ConfigurationError(
                f"StreamConfig: worlds {self.worlds} must be at least 1, questions_per_type {self.questions_per_type} "
                f"and first_batch {self.first_batch} at least 0."
            )


@dataclass(frozen=True, eq=False)
class RoomBatch:
    """The clips of a batch, and the questions about each of them."""

    number: int
    clips: list[Clip]
    questions: list[list[SceneQuestion]]


def first_batch_of(seed: int) -> int:
    """The number of the batch at which a run with this seed begins, so that runs with other seeds see other rooms."""
    return seed * 1_000_003


class RoomStream(torch.utils.data.IterableDataset[RoomBatch]):
    """Batches in the order of their numbers. The number alone determines a batch, so it can be made again.

    In a DataLoader (``batch_size=None``) worker k of n makes the batches k, k + n, ...; the loader returns them in
    order, so the number of workers changes nothing. On a GPU use no workers and ``device="cuda"``.
    """

    def __init__(self, config: StreamConfig, *, device: str | torch.device = "cpu") -> None:
        self._config, self._device = config, device

    def __iter__(self) -> Iterator[RoomBatch]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        number = self._config.first_batch + worker
        while True:
            yield self.batch(number)
            number += workers

    def batch(self, number: int) -> RoomBatch:
        """Makes batch ``number``; answers are balanced within the batch."""
        config = self._config
        first, last = SPLITS[config.split]
        per_pass = (last - first) // config.worlds
        start = (number % per_pass) * config.worlds
        seeds = [split_seed(config.split, start + n) for n in range(config.worlds)]
        clips = make_clips(seeds, config.clip, device=self._device, walk=number // per_pass)
        balancer = AnswerBalancer(seed=number)
        questions = [
            balancer.choose(
                candidate_questions(clip.annotation, seed=number, vocabulary=LABELS, types=config.types),
                per_type=config.questions_per_type,
            )
            if config.questions_per_type
            else []
            for clip in clips
        ]
        return RoomBatch(number, clips, questions)
