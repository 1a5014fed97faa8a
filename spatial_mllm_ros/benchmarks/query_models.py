"""The models that questions are measured with: three sizes of Spatial-MLLM v1.1 with random weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.small.architecture import architecture_config, new_model
from spatial_mllm_ros.models.small.sizes import FULL, MID, TINY_ROOMS, SmallArchitecture
from spatial_mllm_ros.models.small.tokenizer_training import spatial_question_corpus, train_tokenizer
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.preparation import TRAINING_BUDGET


@dataclass(frozen=True)
class QuerySize:
    """A model, the frames it is shown, and how often each way is measured.

    Attributes:
        vocabulary: rows of the language model's output layer; 0: as many as the tokenizer has.
        width_px, height_px: of the camera's frames.
        sampling_long_side_px: longer side at which the published sampling sees them.
        published, chosen, warm: questions measured per way.
        half: weights in bfloat16 instead of float32.
    """

    architecture: SmallArchitecture
    width_px: int
    height_px: int
    sampling_long_side_px: int
    published: int
    chosen: int
    warm: int
    vocabulary: int = 0
    half: bool = False


SIZES = {
    "tiny": QuerySize(
        TINY_ROOMS, width_px=112, height_px=84, sampling_long_side_px=112, published=3, chosen=10, warm=50
    ),
    "mid": QuerySize(
        MID,
        width_px=252,
        height_px=196,
        sampling_long_side_px=252,
        published=2,
        chosen=5,
        warm=50,
        vocabulary=8192,
    ),
    "full": QuerySize(
        FULL,
        width_px=640,
        height_px=480,
        sampling_long_side_px=518,
        published=2,
        chosen=5,
        warm=50,
        vocabulary=151_936,
        half=True,
    ),
}


def random_model(name: str, size: QuerySize, *, device: str) -> LoadedSpatialMllm:
    """A model of this size with fixed random weights; it never ends an answer by itself, so all are of one length."""
    tokenizer = train_tokenizer(spatial_question_corpus())
    config = architecture_config(size.architecture, tokenizer, licence="none")
    config["vocab_size"] = size.vocabulary or tokenizer.size
    model = new_model(config, seed=0).eval().requires_grad_(False)
    if size.half:
        for weight in model.parameters():  # the weights alone: constants such as rotary frequencies stay exact
            weight.data = weight.data.to(torch.bfloat16)
        model.spatial_encoder.cast_aggregator(torch.bfloat16)
    model.to(device)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = tokenizer.pad_id
    identity = ModelIdentity(f"random-{name}", "0" * 64, "Spatial-MLLM v1.1", "none", random_weights=True)
    budget = size.architecture.budget or TRAINING_BUDGET
    return LoadedSpatialMllm(model, tokenizer, identity, Fusion.V1_1, config, budget)


def size_of_checkpoint(loaded: LoadedSpatialMllm) -> QuerySize:
    """How to measure a checkpoint: frames of the sizes it was trained with, as often as the size nearest to it."""
    parameters = sum(weight.numel() for weight in loaded.model.parameters())
    like = SIZES["tiny" if parameters < 30e6 else "mid" if parameters < 1e9 else "full"]
    height_px, width_px = loaded.budget.size_px(480, 640)
    return replace(like, width_px=width_px, height_px=height_px, sampling_long_side_px=min(518, width_px // 14 * 14))
