"""The loss of VGGT: cameras over all refinement steps, depth and points weighted by confidence.

Method: Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025, section 3.3. Left out: tracking.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_mllm_ros.models.vggt import VGGT, VggtOutput
from spatial_mllm_ros.training.geometry.batch import GeometryBatch, GeometryTargets, targets_of
from spatial_mllm_ros.training.geometry.config import GeometryLossConfig

_VIEW_WEIGHT = 0.5  # of the two fields of view, beside translation and rotation


class GeometryObjective(nn.Module):
    """VGGT with its loss. Heads that the model does not have are left out."""

    def __init__(self, vggt: VGGT, config: GeometryLossConfig) -> None:
        super().__init__()
        self.vggt = vggt
        self.config = config

    def forward(self, batch: GeometryBatch) -> dict[str, Tensor]:
        """A batch on any device -> ``loss`` and the unweighted losses of its parts, means over the batch."""
        vggt, config = self.vggt, self.config
        batch = batch.to(next(vggt.parameters()).device)
        targets = targets_of(batch, unit_m=config.unit_m if config.scale == "metric" else None)
        has = {
            VggtOutput.POSE: vggt.camera_head is not None and config.camera > 0,
            VggtOutput.DEPTH: vggt.depth_head is not None and config.depth > 0,
            VggtOutput.POINTS: vggt.point_head is not None and config.points > 0,
        }
        wanted = [output for output, present in has.items() if present]
        layers = vggt.aggregator(batch.images, vggt.layers_for(wanted))
        terms: dict[str, Tensor] = {}
        with torch.autocast(batch.images.device.type, enabled=False):  # the heads run in float32
            dense = vggt.heads(
                layers,
                vggt.aggregator.grid_of(batch.images),
                [output for output in wanted if output is not VggtOutput.POSE],
            )
            if vggt.camera_head is not None and has[VggtOutput.POSE]:
                refined = vggt.camera_head(layers[vggt.config.depth - 1].float())
                terms["camera"] = camera_loss(refined, targets, config)
            if dense.depth is not None and dense.depth_confidence is not None:
                terms["depth"] = dense_loss(
                    dense.depth[..., None], dense.depth_confidence, targets.depth[..., None], targets.mask, config
                )
            if dense.points_world is not None and dense.points_confidence is not None:
                terms["points"] = dense_loss(
                    dense.points_world, dense.points_confidence, targets.points, targets.mask, config
                )
        weights = {"camera": config.camera, "depth": config.depth, "points": config.points}
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": loss, **terms}


def camera_loss(refined: Sequence[Tensor], targets: GeometryTargets, config: GeometryLossConfig) -> Tensor:
    """Huber loss on the nine camera numbers [B, S, 9] after every refinement step; later steps have larger weights."""
    total = weights = torch.zeros((), device=targets.depth.device)
    for steps_left, pose in zip(range(len(refined) - 1, -1, -1), refined, strict=True):
        error = F.smooth_l1_loss(pose, targets.pose_encoding, beta=config.huber, reduction="none")
        parts = (error[..., :3].mean(), error[..., 3:7].mean(), _VIEW_WEIGHT * error[..., 7:].mean())
        weight = config.refinement_decay**steps_left
        total = total + weight * torch.stack(parts).sum()
        weights = weights + weight
    return total / weights


def dense_loss(
    predicted: Tensor, confidence: Tensor, target: Tensor, mask: Tensor, config: GeometryLossConfig
) -> Tensor:
    """Confidence x (distance + distance of neighbours' differences) - weight x log confidence, mean over known pixels.

    Args:
        predicted, target: [B, S, H, W, C].
        confidence: [B, S, H, W], >= 1.
        mask: bool [B, S, H, W].
    """
    error = torch.where(mask[..., None], predicted - target, 0.0)
    values = confidence * _length(error) - config.confidence * confidence.log()
    total = _mean(values, mask)
    if config.gradient:
        for axis in (2, 3):
            size = error.shape[axis] - 1
            step = error.narrow(axis, 1, size) - error.narrow(axis, 0, size)
            both = mask.narrow(axis, 1, size) & mask.narrow(axis, 0, size)
            total = total + config.gradient * _mean(confidence.narrow(axis, 0, size) * _length(step), both)
    return total


def _length(vectors: Tensor) -> Tensor:
    # The square root has no gradient at zero; a millionth of the unit changes nothing.
    return (vectors.square().sum(-1) + 1e-12).sqrt()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
