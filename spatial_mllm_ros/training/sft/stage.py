"""The stage of fine-tuning: which samples make a step; samples are read ahead, and bad ones are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from spatial_mllm_ros.errors import ConfigurationError, SampleRejectedError, SourceError, TrainingError
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import (
    PreparedImage,
    PreparedVideo,
    prepare_image,
    prepare_video,
    training_frame_indices,
)
from spatial_mllm_ros.recordings.clips import read_clip, read_image
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.training.loop import seed_everything
from spatial_mllm_ros.training.optimiser import parameter_groups
from spatial_mllm_ros.training.run_folder import BadSamples
from spatial_mllm_ros.training.sft.batch import Dialogue, SftBatch, SftRow, build_batch, encode_dialogue
from spatial_mllm_ros.training.sft.config import SftConfig, SftDataConfig
from spatial_mllm_ros.training.sft.data import Conversation, ConversationFiles, shuffled
from spatial_mllm_ros.training.sft.model import SftObjective, part_of, scale_visual_tokens
from spatial_mllm_ros.training.sft.room_pool import RoomPool
from spatial_mllm_ros.training.sft.rooms import RoomRows
from spatial_mllm_ros.training.supervision.tokens import word_tokens

if TYPE_CHECKING:
    from accelerate import Accelerator

_ROOMS_TO_MEASURE = 4  # have hundreds of tokens, enough to measure the tokens' size


class SftStage:
    """Data, objective and parameter groups of the stage; see ``loop.Stage``."""

    name = "sft"

    def __init__(self, loaded: LoadedSpatialMllm, config: SftConfig, bad: BadSamples) -> None:
        seed_everything(config.run.seed, 0, 0)  # the heads that are dropped at the end begin with random weights
        self.objective = SftObjective(loaded.model, config.model, words=word_tokens(loaded.tokenizer, LABELS))
        self.bad = bad
        self._loaded = loaded
        self._config = config
        self._pool = ThreadPoolExecutor(config.data.workers) if config.data.workers else None
        self._files = FileRows(loaded, config, bad, self._pool) if config.data.files else None
        self._rooms = RoomRows(
            loaded,
            config.data,
            seed=config.run.seed,
            token_targets=bool(config.model.token_supervision or config.model.attention_supervision)
            or config.model.spatial == "true_points",
            mention_targets=bool(config.model.mention_supervision),
            pointers=bool(config.model.attention_supervision),
        )
        self._pool_of_rooms: RoomPool | None = None
        if config.model.token_rms:
            seen = [row.prepared for row in self._rooms.rows(0, _ROOMS_TO_MEASURE, turn=0)]
            scale_visual_tokens(loaded.model, seen, config.model.token_rms)

    def __enter__(self) -> SftStage:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def sha256(self) -> Mapping[str, str]:
        """What the data are, name -> hash."""
        return self._files.sha256 if self._files is not None else self._rooms.sha256

    @property
    def usable(self) -> int | None:
        """Lines that can be trained on; None for generated rooms, which have no end."""
        return self._files.usable if self._files is not None else None

    def steps_for(self, epochs: float, ranks: int) -> int:
        """Optimiser steps for ``epochs`` passes over the data, rounded up.

        Raises:
            ConfigurationError: the data are generated rooms, which have no end.
        """
        if self._files is None:
            raise ConfigurationError("Generated rooms have no end; set --run.steps to the number of optimiser steps.")
        per_step = self._config.run.batch_size * self._config.run.accumulate * ranks
        return max(1, -int(-epochs * self._files.samples // per_step))

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """See loop.Stage."""
        rates = vars(self._config.rates)
        named = [(part_of(name), name, p) for name, p in self._loaded.model.named_parameters() if p.requires_grad]
        # What is dropped at the end has the connector's learning rate.
        named += [("connector", name, p) for name, p in self.objective.dropped_parameters()]
        return parameter_groups(((part, name, p) for part, name, p in named if part), rates, weight_decay)

    def batches(self, step: int, rank: int, ranks: int) -> list[SftBatch]:
        """See loop.Stage."""
        size, accumulate = self._config.run.batch_size, self._config.run.accumulate
        if self._files is not None:
            rows = self._files.rows(step, rank, ranks)
            parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        else:
            first = (step * ranks + rank) * accumulate
            if self._config.data.rooms_pool and self._pool_of_rooms is None:
                self._pool_of_rooms = self._rooms.pool(rank, ranks)
            pool = self._pool_of_rooms
            rows_of = self._rooms.rows if pool is None else partial(self._rooms.rows_of, pool)
            parts = [rows_of(first + n, size, turn=step * accumulate + n) for n in range(accumulate)]
        rule, tokenizer = self._loaded.model.model.mrope_rule, self._loaded.tokenizer
        return [build_batch(tokenizer, part, rule) for part in parts]

    def weight(self, batch: SftBatch) -> float:
        """See loop.Stage."""
        return batch.weight

    def notes(self) -> dict[str, Any]:
        """See loop.Stage."""
        return {"bad_samples": self.bad.total}

    def after_step(self, step: int, total: int, model: nn.Module, accelerator: Accelerator) -> dict[str, Any]:
        """See loop.Stage."""
        return {}


class FileRows:
    """Rows from jsonl files in a shuffled order without end, read ahead by ``pool``.

    A sample that is found to be bad when it is read is reported and replaced by the next one in the order, so that
    every process always has its batches.
    """

    def __init__(
        self, loaded: LoadedSpatialMllm, config: SftConfig, bad: BadSamples, pool: ThreadPoolExecutor | None
    ) -> None:
        self.bad = bad
        self._files = ConversationFiles(config.data.files, config.data.media_root, bad)
        self._loaded, self._config, self._pool = loaded, config, pool
        self._groups = self._files.groups(config.data.questions_per_video)
        self._ahead: dict[tuple[int, int], Future[SftRow]] = {}

    @property
    def sha256(self) -> Mapping[str, str]:
        """Hashes of the files."""
        return self._files.sha256

    @property
    def usable(self) -> int:
        """Lines that can be trained on."""
        return len(self._files)

    @property
    def samples(self) -> int:
        """Rows in one pass over the data."""
        return len(self._groups)

    def rows(self, step: int, rank: int, ranks: int) -> list[SftRow]:
        """The process's rows of an optimiser step."""
        rows = [future() for future in self._rows(step, rank, ranks)]
        self._read_ahead(step + 1, rank, ranks)
        return rows

    def _slots(self, step: int, rank: int, ranks: int) -> range:
        per_rank = self._config.run.batch_size * self._config.run.accumulate
        start = (step * ranks + rank) * per_rank
        return range(start, start + per_rank)

    def _rows(self, step: int, rank: int, ranks: int) -> Iterator[Callable[[], SftRow]]:
        for slot in self._slots(step, rank, ranks):
            ahead = self._ahead.pop((step, slot), None)
            yield ahead.result if ahead is not None else partial(self._row, slot)

    def _read_ahead(self, step: int, rank: int, ranks: int) -> None:
        if self._pool is not None:
            self._ahead = {(step, slot): self._pool.submit(self._row, slot) for slot in self._slots(step, rank, ranks)}

    def _row(self, slot: int) -> SftRow:
        """The sample at a place in the endless order of the data, or the next good one."""
        count = len(self._groups)
        epoch, place = divmod(slot, count)
        order = shuffled(count, self._config.run.seed, epoch)
        for later in range(count):
            group = self._groups[int(order[(place + later) % count])]
            if row := self._group_row(group):
                return row
        raise TrainingError(
            f"No sample of the data can be used: {dict(self.bad.counts)}; the file bad_samples.jsonl of the run "
            "says why for each."
        )

    def _group_row(self, group: Sequence[int]) -> SftRow | None:
        """The lines of a group that can be used, or None."""
        prepared: PreparedVideo | PreparedImage | None = None
        dialogues: list[Dialogue] = []
        for index in group:
            try:
                conversation = self._files[index]
                if prepared is None:
                    prepared = load_media(conversation, self._config.data, self._loaded)
                dialogue = encode_dialogue(self._loaded.tokenizer, conversation.turns)
                self._check_length(prepared, dialogue)
                dialogues.append(dialogue)
            except SampleRejectedError as error:
                self.bad.report(*self._files.where(index), error)
        return SftRow(prepared, dialogues) if prepared is not None and dialogues else None

    def _check_length(self, prepared: PreparedVideo | PreparedImage, dialogue: Dialogue) -> None:
        length, most = prepared.token_count + len(dialogue.ids), self._config.data.max_tokens
        if length > most:
            raise SampleRejectedError(
                "too_long",
                f"The sample has {length} tokens ({prepared.token_count} of them visual); at most {most} are allowed "
                "(data.max_tokens). Use fewer frames or shorten it.",
            )


def load_media(
    conversation: Conversation, data: SftDataConfig, loaded: LoadedSpatialMllm
) -> PreparedVideo | PreparedImage:
    """The frames that a conversation is about, as the model sees them.

    Raises:
        SampleRejectedError: cause ``media``.
    """
    try:
        if conversation.is_image:
            return prepare_image(read_image(conversation.media), loaded.budget)
        frames = read_clip(conversation.media, lambda total: training_frame_indices(total, min(total, data.frames)))
        return prepare_video(frames, loaded.budget)
    except (SourceError, ConfigurationError) as error:
        raise SampleRejectedError("media", str(error)) from error
