"""What fine-tuning trains: the parts of Spatial-MLLM, which of them change, and the loss on a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoint_files import read_checkpoint
from spatial_mllm_ros.models.checkpoint_layouts import Layout, layout_of
from spatial_mllm_ros.models.checkpoints import load_spatial_mllm, load_vggt
from spatial_mllm_ros.models.identity import weights_sha256
from spatial_mllm_ros.models.preparation import PreparedImage, PreparedVideo
from spatial_mllm_ros.models.spatial_mllm import SpatialMllm
from spatial_mllm_ros.models.true_points import point_tokens
from spatial_mllm_ros.training.config import SftModelConfig
from spatial_mllm_ros.training.sft_batch import IGNORED, SftBatch
from spatial_mllm_ros.training.token_truth import TokenTruthHead

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


@dataclass(frozen=True)
class TakenEncoder:
    """A VGGT that came from another checkpoint: what it was, and what config.json has to say of it from now on."""

    description: Mapping[str, Any]
    config_changes: Mapping[str, Any]


def take_spatial_encoder(model: SpatialMllm, folder: Path | None) -> TakenEncoder | None:
    """Puts the VGGT of another checkpoint in the place of the model's.

    Raises:
        CheckpointError: the folder holds no VGGT, or one of another size.
    """
    if folder is None:
        return None
    files = read_checkpoint(folder, config_required=False)
    if layout_of(files.shapes) is Layout.VGGT:
        vggt = load_vggt(folder)
    else:
        vggt = load_spatial_mllm(folder).model.spatial_encoder
    own = model.model.spatial_encoder
    if vggt.config != own.config:
        raise CheckpointError(
            f"The VGGT in {folder} has other sizes than the checkpoint's ({vggt.config} instead of {own.config}); "
            "start from a checkpoint that was made for it."
        )
    own.load_state_dict(vggt.state_dict())
    return TakenEncoder(
        {"name": folder.resolve().name, "sha256": weights_sha256(files.files)},
        {"spatial_unit_m": files.config.get("spatial_unit_m")},
    )


class SftObjective(nn.Module):
    """Sum of the answer tokens' cross-entropies; logits are made for these tokens only.

    Args:
        config: what stands for the frames: the encoder's tokens or true points, and how often nothing.
    """

    def __init__(self, model: SpatialMllm, config: SftModelConfig | None = None) -> None:
        super().__init__()
        self.model = model
        self._true_points = config is not None and config.spatial == "true_points"
        self._zeroed, self._blind = (config.zeroed, config.blind) if config is not None else (0.0, 0.0)
        self._token_weight = config.token_truth if config is not None else 0.0
        width = model.config.text_config.hidden_size
        self.token_head = TokenTruthHead(width) if self._token_weight else None

    def dropped_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What learns with the model and is no part of the finished one."""
        return iter(()) if self.token_head is None else self.token_head.named_parameters(prefix="token_head")

    def forward(self, batch: SftBatch) -> dict[str, torch.Tensor]:
        """A batch on any device -> ``loss`` and ``token_accuracy`` (tokens that were likeliest), sums over tokens.

        With a head on the tokens also its terms, times the number of learned tokens: as much as the answers count.
        """
        device = self.model.lm_head.weight.device
        mask = batch.attention_mask
        rows, token_terms = self._visual_rows(batch)
        hidden = self.model.model(
            input_ids=batch.input_ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            position_ids=batch.position_ids.to(device),
            use_cache=False,
            visual_embeds=rows,
        ).last_hidden_state
        targets = batch.labels[:, 1:].to(device)
        learned = targets != IGNORED
        logits = self.model.lm_head(hidden[:, :-1][learned]).float()
        loss = F.cross_entropy(logits, targets[learned], reduction="sum")
        terms = {"answer_loss": loss.detach(), "token_accuracy": (logits.argmax(-1) == targets[learned]).sum().float()}
        for name, term in token_terms.items():
            terms[name] = term.detach() * batch.learned_tokens
        if "token_loss" in token_terms:
            loss = loss + self._token_weight * batch.learned_tokens * token_terms["token_loss"]
        return {"loss": loss, **terms}

    def _visual_rows(self, batch: SftBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Visual tokens [n, D] of all rows after each other, and the means of the token head's terms.

        What a row is not shown is multiplied by 0 and not left out: each process of a distributed run then has
        gradients for all trained parameters, whatever it drew.
        """
        fused = self.model.model
        grids = torch.cat([_grid(item) for item in batch.prepared])
        tokens = fused.plain_visual_tokens(torch.cat([_pixels(item) for item in batch.prepared]), grids)
        own = list(tokens.split([item.token_count for item in batch.prepared]))
        added = self._spatial(batch)
        draws = torch.rand(len(own)).tolist()
        rows, terms, sighted = [], [], []
        for token, addition, draw, truth in zip(own, added, draws, batch.truths, strict=True):
            sees = float(draw >= self._blind)
            fuses = float(draw >= self._blind + self._zeroed)
            rows.append(sees * token + fuses * addition.to(token.device, token.dtype))
            if self.token_head is not None and truth is not None:
                terms.append(self.token_head(rows[-1], truth))
                sighted.append(sees)
        if not terms:
            return torch.cat(rows), {}
        weights = tokens.new_tensor(sighted) / max(1.0, sum(sighted))
        return torch.cat(rows), {name: (weights * torch.stack([t[name] for t in terms])).sum() for name in terms[0]}

    def _spatial(self, batch: SftBatch) -> list[torch.Tensor]:
        """What the connector adds to the tokens of each row."""
        fused = self.model.model
        grids = [tuple(_grid(item)[0, 1:].tolist()) for item in batch.prepared]
        if self._true_points:
            width = 2 * fused.spatial_encoder.config.embed_dim
            weight = next(fused.connector.parameters())
            patches = [point_tokens(truth.patches_m, width) for truth in batch.truths if truth is not None]
            return [
                fused.connector(patch.to(weight.device, weight.dtype), grid)
                for patch, grid in zip(patches, grids, strict=True)
            ]
        return [
            fused.spatial_tokens(item.spatial_images, grid) for item, grid in zip(batch.prepared, grids, strict=True)
        ]


def _pixels(item: PreparedVideo | PreparedImage) -> torch.Tensor:
    return item.pixel_values_videos if isinstance(item, PreparedVideo) else item.pixel_values


def _grid(item: PreparedVideo | PreparedImage) -> torch.Tensor:
    return item.video_grid_thw if isinstance(item, PreparedVideo) else item.image_grid_thw
