"""Supervised fine-tuning of Spatial-MLLM on conversations about videos and images (arXiv 2505.23747, section 4.2).

Answers are learned token by token, each token counting the same; questions, system text and frames are not learned.
Simplified against the published recipe: no packing of samples about different videos, no LoRA.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from spatial_mllm_ros.datasets.clips import read_clip, read_image
from spatial_mllm_ros.errors import ConfigurationError, SampleRejectedError, SourceError, TrainingError
from spatial_mllm_ros.models.checkpoints import LoadedSpatialMllm, load_spatial_mllm
from spatial_mllm_ros.models.preparation import (
    PreparedImage,
    PreparedVideo,
    prepare_image,
    prepare_video,
    training_frame_indices,
)
from spatial_mllm_ros.models.spatial_mllm import SpatialMllm
from spatial_mllm_ros.training.config import SftConfig, SftDataConfig
from spatial_mllm_ros.training.config_cli import as_plain
from spatial_mllm_ros.training.finished import save_finished
from spatial_mllm_ros.training.loop import open_accelerator, train
from spatial_mllm_ros.training.optimiser import parameter_groups
from spatial_mllm_ros.training.run_folder import BadSamples, RunFolder
from spatial_mllm_ros.training.sft_batch import (
    IGNORED,
    Dialogue,
    SftBatch,
    build_batch,
    encode_dialogue,
)
from spatial_mllm_ros.training.sft_data import Conversation, ConversationFiles, shuffled

if TYPE_CHECKING:
    from accelerate import Accelerator

_LOG = logging.getLogger(__name__)
#: Beginning of a parameter's name -> the part it belongs to; the first that fits counts.
_PART_OF = (
    ("model.connector.", "connector"),
    ("model.visual.merger.", "merger"),
    ("model.visual.", "vision"),
    ("model.spatial_encoder.aggregator.", "spatial"),
    ("model.language_model.", "language"),
    ("lm_head.", "language"),
)
_NEVER_USED = ("mask_token",)  # of DINOv2's pre-training

Row = tuple[PreparedVideo | PreparedImage, list[Dialogue]]


def run_sft(config: SftConfig) -> Path:
    """Runs or resumes a training; returns the folder of the finished checkpoint.

    Raises:
        CheckpointError: the checkpoint to start from cannot be loaded.
        TrainingError: no usable data, a run folder of another run, or gradients that are not finite.
        ConfigurationError: a value is outside its range.
    """
    accelerator = open_accelerator(config.run)
    out, first = config.run.out, accelerator.is_main_process
    loaded = load_spatial_mllm(config.model.checkpoint)
    # The frozen parts need no float32: nothing is added to them.
    half = accelerator.mixed_precision == "bf16"
    choose_trained(loaded.model, config.model.trained, frozen=torch.bfloat16 if half else torch.float32)
    if config.model.gradient_checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    out.mkdir(parents=True, exist_ok=True)
    reports = out / ("bad_samples.jsonl" if first else f"bad_samples.{accelerator.process_index}.jsonl")
    with SftStage(loaded, config, BadSamples(reports)) as stage:
        folder = None
        if first:
            description = {
                "stage": "sft",
                "config": as_plain(config),
                "data": stage.files.sha256,
                "start": {"name": loaded.identity.name, "sha256": loaded.identity.sha256},
                "samples": {"usable": len(stage.files), "left_out": dict(stage.bad.counts)},
            }
            folder = RunFolder(out, description, resume=config.run.resume)
        accelerator.wait_for_everyone()
        total = config.run.steps or stage.steps_for(config.run.epochs, accelerator.num_processes)
        model = train(
            stage,
            run=config.run,
            optimiser_config=config.optimiser,
            total=total,
            folder=folder,
            accelerator=accelerator,
        )
        if stage.bad.total:
            _LOG.warning("%d samples were left out: %s; see %s.", stage.bad.total, dict(stage.bad.counts), reports)
    return save_finished(
        out / "checkpoint",
        model,
        accelerator,
        place=("model.", ""),
        source=config.model.checkpoint,
        save_dtype=config.run.save_dtype,
        config_changes={"random_weights": None},
    )


def part_of(name: str) -> str | None:
    """The trainable part that a parameter belongs to; None: it takes no part in answering (VGGT's heads)."""
    if name.endswith(_NEVER_USED):
        return None
    return next((part for start, part in _PART_OF if name.startswith(start)), None)


def choose_trained(model: SpatialMllm, trained: Sequence[str], *, frozen: torch.dtype) -> None:
    """Lets the parts ``trained`` change, in float32, and freezes the others, in ``frozen``; in training mode."""
    for name, parameter in model.named_parameters():
        chosen = part_of(name) in trained
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if chosen or part_of(name) is None else frozen)
        parameter.requires_grad_(chosen)
    model.train()


class SftObjective(nn.Module):
    """Sum of the answer tokens' cross-entropies; logits are made for these tokens only."""

    def __init__(self, model: SpatialMllm) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: SftBatch) -> dict[str, torch.Tensor]:
        """A batch on any device -> ``loss`` and ``token_accuracy`` (tokens that were likeliest), sums over tokens."""
        device = self.model.lm_head.weight.device
        mask = batch.attention_mask
        hidden = self.model.model(
            input_ids=batch.input_ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            position_ids=batch.position_ids.to(device),
            use_cache=False,
            **_visual_inputs(batch.prepared),
        ).last_hidden_state
        targets = batch.labels[:, 1:].to(device)
        learned = targets != IGNORED
        logits = self.model.lm_head(hidden[:, :-1][learned]).float()
        loss = F.cross_entropy(logits, targets[learned], reduction="sum")
        return {"loss": loss, "token_accuracy": (logits.argmax(-1) == targets[learned]).sum().float()}


def _visual_inputs(prepared: Sequence[PreparedVideo | PreparedImage]) -> dict[str, Any]:
    videos = [item for item in prepared if isinstance(item, PreparedVideo)]
    images = [item for item in prepared if isinstance(item, PreparedImage)]
    inputs: dict[str, Any] = {}
    if videos:
        inputs["pixel_values_videos"] = torch.cat([item.pixel_values_videos for item in videos])
        inputs["video_grid_thw"] = torch.cat([item.video_grid_thw for item in videos])
        inputs["spatial_videos"] = [item.spatial_images for item in videos]
    if images:
        inputs["pixel_values"] = torch.cat([item.pixel_values for item in images])
        inputs["image_grid_thw"] = torch.cat([item.image_grid_thw for item in images])
        inputs["spatial_images"] = [item.spatial_images for item in images]
    return inputs


class SftStage:
    """Data, objective and parameter groups of the stage; see ``loop.Stage``.

    A sample that turns out bad when it is read is reported, and the next one in the order takes its place, so that
    every process always has its batches.
    """

    name = "sft"

    def __init__(self, loaded: LoadedSpatialMllm, config: SftConfig, bad: BadSamples) -> None:
        self.objective = SftObjective(loaded.model)
        self.bad = bad
        self.files = ConversationFiles(config.data.files, config.data.media_root, bad)
        self._loaded = loaded
        self._config = config
        self._groups = self.files.groups(config.data.questions_per_video)
        self._pool = ThreadPoolExecutor(config.data.workers) if config.data.workers else None
        self._ahead: dict[tuple[int, int], Future[Row]] = {}

    def __enter__(self) -> SftStage:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def steps_for(self, epochs: float, ranks: int) -> int:
        """Optimiser steps for so many passes over the data, the last one rounded up."""
        samples = epochs * len(self._groups)
        return max(1, -int(-samples // (self._config.run.batch_size * self._config.run.accumulate * ranks)))

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """See loop.Stage."""
        rates = vars(self._config.rates)
        named = ((part_of(name), name, p) for name, p in self._loaded.model.named_parameters() if p.requires_grad)
        return parameter_groups(((part, name, p) for part, name, p in named if part), rates, weight_decay)

    def batches(self, step: int, rank: int, ranks: int) -> list[SftBatch]:
        """See loop.Stage."""
        rows = [future() for future in self._rows(step, rank, ranks)]
        self._read_ahead(step + 1, rank, ranks)
        size = self._config.run.batch_size
        rule, tokenizer = self._loaded.model.model.mrope_rule, self._loaded.tokenizer
        return [build_batch(tokenizer, rows[start : start + size], rule) for start in range(0, len(rows), size)]

    def weight(self, batch: SftBatch) -> float:
        """See loop.Stage."""
        return batch.learned_tokens

    def notes(self) -> dict[str, Any]:
        """See loop.Stage."""
        return {"bad_samples": self.bad.total}

    def after_step(self, step: int, total: int, model: nn.Module, accelerator: Accelerator) -> dict[str, Any]:
        """See loop.Stage."""
        return {}

    def _slots(self, step: int, rank: int, ranks: int) -> range:
        per_rank = self._config.run.batch_size * self._config.run.accumulate
        start = (step * ranks + rank) * per_rank
        return range(start, start + per_rank)

    def _rows(self, step: int, rank: int, ranks: int) -> Iterator[Callable[[], Row]]:
        for slot in self._slots(step, rank, ranks):
            ahead = self._ahead.pop((step, slot), None)
            yield ahead.result if ahead is not None else partial(self._row, slot)

    def _read_ahead(self, step: int, rank: int, ranks: int) -> None:
        if self._pool is not None:
            self._ahead = {(step, slot): self._pool.submit(self._row, slot) for slot in self._slots(step, rank, ranks)}

    def _row(self, slot: int) -> Row:
        """The sample at a place in the endless order of the data, or the next good one."""
        count = len(self._groups)
        epoch, place = divmod(slot, count)
        order = shuffled(count, self._config.run.seed, epoch)
        for later in range(count):
            group = self._groups[int(order[(place + later) % count])]
            if row := self._group_row(group):
                return row
        raise TrainingError(
            f"Not one sample of the data can be used: {dict(self.bad.counts)}; the file bad_samples.jsonl of the run "
            "says why for each."
        )

    def _group_row(self, group: Sequence[int]) -> Row | None:
        """The lines of a group that can be used, or None."""
        prepared: PreparedVideo | PreparedImage | None = None
        dialogues: list[Dialogue] = []
        for index in group:
            try:
                conversation = self.files[index]
                if prepared is None:
                    prepared = load_media(conversation, self._config.data, self._loaded)
                dialogue = encode_dialogue(self._loaded.tokenizer, conversation.turns)
                self._check_length(prepared, dialogue)
                dialogues.append(dialogue)
            except SampleRejectedError as error:
                self.bad.report(*self.files.where(index), error)
        return (prepared, dialogues) if prepared is not None and dialogues else None

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
