"""What fine-tuning trains: the parts of Spatial-MLLM, which of them change, and the loss on a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from spatial_mllm_ros.models.preparation import PreparedImage, PreparedVideo
from spatial_mllm_ros.models.spatial_mllm import SpatialMllm
from spatial_mllm_ros.training.sft_batch import IGNORED, SftBatch

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
