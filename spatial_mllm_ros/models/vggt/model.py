"""VGGT: from images to cameras, depth, points, and the tokens that the language model reads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.vggt.aggregator import Aggregator
from spatial_mllm_ros.models.vggt.camera_head import CameraHead
from spatial_mllm_ros.models.vggt.config import VggtConfig
from spatial_mllm_ros.models.vggt.dpt_head import DptHead


class VggtOutput(str, Enum):
    """What a forward pass is asked for; nothing else is computed."""

    POSE = "pose"
    DEPTH = "depth"
    POINTS = "points"
    LAST_LAYER = "last_layer"


@dataclass(frozen=True, eq=False)
class VggtPrediction:
    """What VGGT says of S frames; None where it was not asked for. Lengths have no metric scale.

    "World" is VGGT's own frame, close to the camera of frame 0.

    Attributes:
        pose_encoding: float32 [B, S, 9], camera-from-world translation, quaternion x y z w (not normalised), vertical
            and horizontal field of view in radians. See ``geometry.poses.cameras_from_vggt_pose_encoding``.
        depth: float32 [B, S, H, W], along the camera's z axis, > 0.
        depth_confidence: float32 [B, S, H, W], >= 1.
        points_world: float32 [B, S, H, W, 3], of the point head.
        points_confidence: float32 [B, S, H, W], >= 1.
        last_layer: [B, S, P, 2 D], dtype of the aggregator, special tokens first.
    """

    pose_encoding: Tensor | None = None
    depth: Tensor | None = None
    depth_confidence: Tensor | None = None
    points_world: Tensor | None = None
    points_confidence: Tensor | None = None
    last_layer: Tensor | None = None


class VGGT(nn.Module):
    """The model, with the keys of the published checkpoints.

    The aggregator runs in the dtype of its weights, the heads always in float32: see ``cast_aggregator``.

    Attributes:
        unused_key_prefixes: keys of a published checkpoint that this model leaves out on purpose: the point tracker,
            and the heads that ``config`` says do not exist.
    """

    unused_key_prefixes: tuple[str, ...] = ("track_head.",)

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config) if config.camera_head else None
        self.depth_head = DptHead(config, values=1) if config.depth_head else None
        self.point_head = DptHead(config, values=3) if config.point_head else None
        absent = (name for name in ("camera_head", "depth_head", "point_head") if getattr(self, name) is None)
        self.unused_key_prefixes = (*type(self).unused_key_prefixes, *(f"{name}." for name in absent))

    def cast_aggregator(self, dtype: torch.dtype) -> VGGT:
        """Puts the aggregator in ``dtype`` and the heads in float32, where exp and 1/tan need them; returns self."""
        self.aggregator.to(dtype)
        for head in (self.camera_head, self.depth_head, self.point_head):
            if head is not None:
                head.to(torch.float32)
        return self

    def last_layer_patch_tokens(self, images: Tensor) -> Tensor:
        """What the fused model reads: images [B, S, 3, H, W] in [0, 1] -> [B, S, N, 2 D], by the aggregator alone."""
        last = self.config.depth - 1
        return self.aggregator(images, (last,))[last][:, :, self.config.patch_start :]

    def forward(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """Geometry of S frames seen together.

        Args:
            images: [B, S, 3, H, W], R G B in [0, 1], H and W multiples of 14. Frame 0 is the reference.
            outputs: what to compute. Heads that are not needed are not run and layers that no head needs not kept.

        Raises:
            ConfigurationError: nothing is asked for, a head asked for does not exist or is not in float32, or the
                images have a wrong shape.
        """
        if not outputs:
            raise ConfigurationError("VGGT was asked for no output; name at least one VggtOutput.")
        wanted = frozenset(VggtOutput(output) for output in outputs)
        return self.heads(self.aggregator(images, self.layers_for(wanted)), self.aggregator.grid_of(images), wanted)

    def layers_for(self, outputs: Collection[VggtOutput]) -> tuple[int, ...]:
        """The aggregator layers that ``outputs`` need, in order."""
        layers: set[int] = set()
        if VggtOutput.POSE in outputs or VggtOutput.LAST_LAYER in outputs:
            layers.add(self.config.depth - 1)
        if VggtOutput.DEPTH in outputs or VggtOutput.POINTS in outputs:
            layers.update(self.config.dpt_layers)
        return tuple(sorted(layers))

    def heads(
        self, layers: dict[int, Tensor], grid: tuple[int, int], outputs: Collection[VggtOutput]
    ) -> VggtPrediction:
        """The heads alone, on the result of ``aggregator.trunk`` for ``layers_for(outputs)``."""
        last = layers.get(self.config.depth - 1)
        pose_encoding = depth = depth_confidence = points_world = points_confidence = None
        if VggtOutput.POSE in outputs:
            head = self._float32_head(self.camera_head, "camera_head")
            pose_encoding = head(_float32(last))[-1]
        if VggtOutput.DEPTH in outputs or VggtOutput.POINTS in outputs:
            dense = [_float32(layers.get(layer)) for layer in self.config.dpt_layers]
            if VggtOutput.DEPTH in outputs:
                raw = self._float32_head(self.depth_head, "depth_head")(dense, grid)
                depth, depth_confidence = raw[:, :, 0].exp(), 1 + raw[:, :, 1].exp()
            if VggtOutput.POINTS in outputs:
                raw = self._float32_head(self.point_head, "point_head")(dense, grid)
                points = raw[:, :, :3].movedim(2, -1)
                points_world = points.sign() * points.abs().expm1()  # inverse of sign(x) * log(1 + |x|)
                points_confidence = 1 + raw[:, :, 3].exp()
        return VggtPrediction(
            pose_encoding=pose_encoding,
            depth=depth,
            depth_confidence=depth_confidence,
            points_world=points_world,
            points_confidence=points_confidence,
            last_layer=last if VggtOutput.LAST_LAYER in outputs else None,
        )

    def _float32_head(self, head: nn.Module | None, name: str) -> nn.Module:
        if head is None:
            raise ConfigurationError(f"This VGGT was built without {name}; set VggtConfig.{name} to use it.")
        dtype = next(head.parameters()).dtype
        if dtype != torch.float32:
            raise ConfigurationError(
                f"{name} has weights in {dtype} but runs in float32; call VGGT.cast_aggregator to choose the precision "
                "of the aggregator alone."
            )
        return head


def _float32(layer: Tensor | None) -> Tensor:
    if layer is None:
        raise ConfigurationError("The heads need an aggregator layer that was not kept; ask for VGGT.layers_for.")
    return layer.float()
