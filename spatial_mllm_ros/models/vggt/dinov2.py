"""The patch encoder: a DINOv2 vision transformer with register tokens (Oquab et al. 2023, Darcet et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_mllm_ros.models.vggt.config import VggtConfig
from spatial_mllm_ros.models.vggt.layers import Block

NORM_EPS = 1e-6


class PatchProjection(nn.Module):
    """Each patch to one token. The weight has the shape of a convolution, the work is that of a linear layer.

    A convolution whose stride equals its kernel is one matrix product over unfolded patches, which every backend runs
    in every precision.
    """

    def __init__(self, patch_size_px: int, dim: int) -> None:
        super().__init__()
        self.patch_size_px = patch_size_px
        self.proj = nn.Conv2d(3, dim, patch_size_px, stride=patch_size_px)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, H/p * W/p, dim], row by row."""
        size = self.patch_size_px
        patches = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # [B, 3, h, p, w, p]
        rows = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [B, h w, 3 p p]
        return F.linear(rows, self.proj.weight.flatten(1), self.proj.bias)


class DinoV2(nn.Module):
    """Images to normalised patch tokens, each frame by itself."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.patch_size_px = config.patch_size_px
        self.learned_side = config.image_size_px // config.patch_size_px
        self.prefix_tokens = 1 + config.register_tokens
        self.patch_embed = PatchProjection(config.patch_size_px, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.register_tokens, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))  # of DINOv2's pre-training; in every checkpoint, not used
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.learned_side**2, dim))
        self.blocks = nn.ModuleList(
            Block(dim, config.dino_heads, mlp_ratio=config.mlp_ratio, norm_eps=NORM_EPS, layer_scale=1.0)
            for _ in range(config.dino_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def patch_positions(self, grid: tuple[int, int]) -> Tensor:
        """The learned position grid resized to ``grid`` (rows, columns), [1, rows * columns, dim].

        Apart from the weights it depends on the grid alone: an export for one image size may bake the result.
        """
        learned = self.pos_embed[:, 1:]
        if grid == (self.learned_side, self.learned_side):
            return learned
        square = learned.float().unflatten(1, (self.learned_side, self.learned_side)).permute(0, 3, 1, 2)
        resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
        return resized.permute(0, 2, 3, 1).flatten(1, 2).to(learned.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images [B, 3, H, W], sides multiples of the patch size -> patch tokens [B, N, dim]."""
        grid = (images.shape[2] // self.patch_size_px, images.shape[3] // self.patch_size_px)
        patches = self.patch_embed(images) + self.patch_positions(grid)
        batch = images.shape[0]
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        tokens = torch.cat((cls_token, self.register_tokens.expand(batch, -1, -1), patches), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, self.prefix_tokens :]
