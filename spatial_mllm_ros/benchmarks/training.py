"""How fast the small model trains on one CPU core: one whole optimiser step of each stage, at a few sizes.

Processor time is measured and not wall time, because other work on the machine hardly changes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
import torch

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.models.small.architecture import architecture_config, new_model
from spatial_mllm_ros.models.small.sizes import TINY_ROOMS
from spatial_mllm_ros.models.small.tokenizer_training import spatial_question_corpus, train_tokenizer
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget, prepare_video
from spatial_mllm_ros.models.spatial_mllm.tokenization import ChatTokenizer
from spatial_mllm_ros.training.config import OptimiserConfig
from spatial_mllm_ros.training.geometry.batch import GeometryBatch
from spatial_mllm_ros.training.geometry.config import GeometryLossConfig
from spatial_mllm_ros.training.geometry.loss import GeometryObjective
from spatial_mllm_ros.training.optimiser import make_optimisers, parameter_groups
from spatial_mllm_ros.training.sft.batch import SftBatch, SftRow, build_batch, encode_dialogue
from spatial_mllm_ros.training.sft.config import PAPER_PARTS, PartRates
from spatial_mllm_ros.training.sft.model import SftObjective, choose_trained, part_of

_QUESTION = (
    "Measuring from the closest point of each object, what is the distance between the sofa and the table (in meters)?"
    "\nPlease answer the question using a single word or phrase."
)
_REPEATS = 3


def training_rows() -> list[Row]:
    """Steps of both stages with one thread, without aims."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*_geometry_rows(), *_sft_rows()]
    finally:
        torch.set_num_threads(before)


def _geometry_rows() -> list[Row]:
    model, _ = _model()
    vggt = model.spatial_encoder.requires_grad_(True)
    objective = GeometryObjective(vggt, GeometryLossConfig())
    named = (("vggt", name, weight) for name, weight in vggt.named_parameters() if not name.endswith("mask_token"))
    (optimiser,) = make_optimisers(parameter_groups(named, {"vggt": 1e-4}, 0.05), OptimiserConfig())
    rows = []
    for width, height, frames, samples in ((112, 84, 8, 4), (168, 126, 8, 4), (224, 168, 8, 4)):
        batch = _geometry_batch(samples, frames, height, width)
        seconds = _seconds(partial(_geometry_loss, objective, batch), optimiser)
        detail = f"{samples} samples x {frames} frames of {width}x{height}, float32"
        rows.append(Row(f"training.geometry.{width}x{height}", 1 / seconds, "steps per CPU second", detail=detail))
    return rows


def _sft_rows() -> list[Row]:
    model, tokenizer = _model()
    choose_trained(model, PAPER_PARTS, frozen=torch.float32)
    objective = SftObjective(model)
    named = ((part_of(name), name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    groups = parameter_groups(((part, name, weight) for part, name, weight in named if part), vars(PartRates()), 0.1)
    (optimiser,) = make_optimisers(groups, OptimiserConfig())
    dialogue = encode_dialogue(tokenizer, ((_QUESTION, "2.4"),))
    rows = []
    for width, height, frames, videos, questions in (
        (112, 84, 8, 4, 1),
        (112, 84, 8, 4, 12),
        (224, 168, 8, 4, 1),
        (224, 168, 8, 4, 12),
        (224, 168, 16, 1, 12),
    ):
        budget = PixelBudget(min_px=width * height, max_px=width * height, pil_resize=True)
        random = np.random.default_rng(0)
        clip = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(frames)]
        video = prepare_video(clip, budget)
        batch = build_batch(tokenizer, [SftRow(video, [dialogue] * questions)] * videos, model.model.mrope_rule)
        seconds = _seconds(partial(_sft_loss, objective, batch), optimiser)
        asked = videos * questions
        detail = (
            f"{videos} video(s) x {frames} frames of {width}x{height} x {questions} question(s) = {asked} questions "
            f"a step, {1 / seconds:.2f} steps per CPU second, float32, media already prepared"
        )
        name = f"training.sft.{width}x{height}.{frames}_frames.{questions}_per_video"
        rows.append(Row(name, asked / seconds, "questions per CPU second", detail=detail))
    return rows


def _geometry_loss(objective: GeometryObjective, batch: GeometryBatch) -> torch.Tensor:
    return objective(batch)["loss"]


def _sft_loss(objective: SftObjective, batch: SftBatch) -> torch.Tensor:
    return objective(batch)["loss"] / batch.learned_tokens


def _model() -> tuple[SpatialMllm, ChatTokenizer]:
    tokenizer = train_tokenizer(spatial_question_corpus())
    sizes = replace(TINY_ROOMS, budget=None)
    return new_model(architecture_config(sizes, tokenizer, licence="apache-2.0"), seed=0), tokenizer


def _geometry_batch(samples: int, frames: int, height: int, width: int) -> GeometryBatch:
    generator = torch.Generator().manual_seed(0)
    shape = (samples, frames, height, width)
    focal = float(width)
    camera = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return GeometryBatch(
        images=torch.rand((samples, frames, 3, height, width), generator=generator),
        depth_m=1 + torch.rand(shape, generator=generator),
        mask=torch.ones(shape, dtype=torch.bool),
        cam_from_world=torch.eye(4)[:3].expand(samples, frames, 3, 4).contiguous(),
        intrinsics_px=camera.expand(samples, frames, 3, 3).contiguous(),
    )


def _seconds(loss: Callable[[], torch.Tensor], optimiser: torch.optim.Optimizer) -> float:
    """Median processor time of a whole step, after one that warms up."""
    times = []
    for _ in range(_REPEATS + 1):
        began = time.process_time()
        loss().backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.process_time() - began)
    return median(times[1:])
