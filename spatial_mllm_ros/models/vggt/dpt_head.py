"""The dense heads: depth or points with confidence per pixel, from four aggregator layers.

Method: Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021, with VGGT's uv position embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_mllm_ros.models.vggt.config import VggtConfig

POSITION_WEIGHT = 0.1
POSITION_BASE = 100.0


def uv_embedding(channels: int, rows: int, columns: int, *, aspect: float, device: torch.device) -> Tensor:
    """Sine-cosine embedding of where a cell lies in the image, float32 [channels, rows, columns].

    Cell centres are given in units in which the image's diagonal is 2, the origin in the middle; the first half of the
    channels is for u (right), the second for v (down); each has its sines before its cosines.

    Args:
        aspect: width of the image over its height.
    """
    diagonal = (aspect**2 + 1) ** 0.5
    u_edge = aspect / diagonal * (columns - 1) / columns
    v_edge = 1 / diagonal * (rows - 1) / rows
    count = channels // 4
    exponents = torch.arange(count, dtype=torch.float32, device=device) / count
    frequencies = POSITION_BASE**-exponents

    def waves(edge: float, steps: int) -> Tensor:
        position = torch.linspace(-edge, edge, steps, dtype=torch.float32, device=device)
        phase = frequencies[:, None] * position[None]
        return torch.cat((phase.sin(), phase.cos()))  # [channels / 2, steps]

    u = waves(u_edge, columns)[:, None, :].expand(-1, rows, -1)
    v = waves(v_edge, rows)[:, :, None].expand(-1, -1, columns)
    return torch.cat((u, v))


class ResidualUnit(nn.Module):
    """Two convolutions around a skip connection that carries the rectified input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, features, h, w] -> the same shape."""
        rectified = F.relu(maps)  # the published model rectifies in place, so its skip connection is rectified as well
        return rectified + self.conv2(F.relu(self.conv1(rectified)))


class FusionBlock(nn.Module):
    """Adds a finer layer to the coarser ones, refines, and enlarges."""

    def __init__(self, features: int, *, takes_finer: bool) -> None:
        super().__init__()
        if takes_finer:
            self.resConfUnit1 = ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, maps: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
        """[B, features, h, w] (and the finer maps of the same size) -> [B, features, *size]."""
        if finer is not None:
            maps = maps + self.resConfUnit1(finer)
        maps = F.interpolate(self.resConfUnit2(maps), size=size, mode="bilinear", align_corners=True)
        return self.out_conv(maps)


class DptScratch(nn.Module):
    """The convolutional part of a dense head (the name is that of the checkpoints)."""

    def __init__(self, features: int, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        for index, width in enumerate(channels, start=1):
            self.add_module(f"layer{index}_rn", nn.Conv2d(width, features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{index}", FusionBlock(features, takes_finer=index < len(channels)))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, out_channels, 1)
        )

    def fuse(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Maps from fine to coarse, [B, channels_i, h_i, w_i] -> [B, features / 2, 2 h_0, 2 w_0]."""
        maps = [self.get_submodule(f"layer{index}_rn")(level) for index, level in enumerate(pyramid, start=1)]
        fused, finer = maps[-1], None
        for index in range(len(maps), 0, -1):
            if index < len(maps):
                finer = maps[index - 1]
            target = maps[index - 2].shape[2:] if index > 1 else tuple(2 * side for side in maps[0].shape[2:])
            fused = self.get_submodule(f"refinenet{index}")(fused, finer, tuple(target))
        return cast(Tensor, self.output_conv1(fused))


class DptHead(nn.Module):
    """Raw values per pixel, [B, S, values + 1, H, W]; the last channel is the confidence before its activation."""

    def __init__(self, config: VggtConfig, *, values: int) -> None:
        super().__init__()
        dim, channels = 2 * config.embed_dim, config.dpt_channels
        self.patch_start = config.patch_start
        self.patch_size_px = config.patch_size_px
        self.frames_per_chunk = config.dpt_frames_per_chunk
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.projects = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in channels)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            )
        )
        self.scratch = DptScratch(config.dpt_features, channels, values + 1)

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Four aggregator layers -> values per pixel.

        Args:
            layers: four tensors [B, S, P, 2 D], earliest layer first, in the dtype of this head's weights.
            grid: rows and columns of patches.

        Returns:
            [B, S, values + 1, H, W], before the activations.
        """
        batch, frames = layers[0].shape[:2]
        rows = [layer[:, :, self.patch_start :].flatten(0, 1) for layer in layers]  # [B S, N, 2 D]
        chunk = self.frames_per_chunk
        if chunk == 0 or batch * frames <= chunk:
            dense = self._of_frames(rows, grid)
        else:
            parts = zip(*(row.split(chunk) for row in rows), strict=True)
            dense = torch.cat([self._of_frames(part, grid) for part in parts])
        return dense.unflatten(0, (batch, frames))

    def _of_frames(self, rows: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        height, width = (side * self.patch_size_px for side in grid)
        aspect = width / height
        pyramid = []
        for row, project, resize in zip(rows, self.projects, self.resize_layers, strict=True):
            maps = project(self.norm(row).transpose(1, 2).unflatten(2, grid))
            pyramid.append(resize(_with_positions(maps, aspect)))
        fused = F.interpolate(self.scratch.fuse(pyramid), size=(height, width), mode="bilinear", align_corners=True)
        return cast(Tensor, self.scratch.output_conv2(_with_positions(fused, aspect)))


def _with_positions(maps: Tensor, aspect: float) -> Tensor:
    channels, rows, columns = maps.shape[1:]
    embedding = uv_embedding(channels, rows, columns, aspect=aspect, device=maps.device)
    return maps + POSITION_WEIGHT * embedding.to(maps.dtype)
