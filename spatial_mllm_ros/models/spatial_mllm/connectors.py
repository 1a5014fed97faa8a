"""How the tokens of the spatial encoder become additions to the visual tokens of Qwen2.5-VL.

Both published connectors merge two frames and 2x2 patches into one row of 8 x C numbers and map it to the width of the
language model; they differ in the order of the numbers within a row and in the layers (Spatial-MLLM, arXiv 2505.23747,
section 3.2, and its public checkpoints). The attribute names are those of the checkpoints' keys.
"""

from __future__ import annotations

from enum import Enum
from typing import cast

import torch
from torch import nn

from spatial_mllm_ros.errors import ConfigurationError

MERGED_PATCHES = 8  # 2 frames x 2 x 2 patches
NORM_EPS = 1e-6


class Fusion(str, Enum):
    """Which published architecture a checkpoint has."""

    V1_0 = "v1.0"
    V1_1 = "v1.1"


def merged_rows(patch_tokens: torch.Tensor, grid: tuple[int, int], fusion: Fusion) -> torch.Tensor:
    """Rows of 2 frames x 2x2 patches, in the order that the connector of ``fusion`` was trained with.

    Args:
        patch_tokens: [S, h * w, C], patch tokens of one video, row by row; S even.
        grid: (h, w) patches per frame, both even.

    Returns:
        [S/2 * h/2 * w/2, 8 C]: rows by time, then block row, then block column. Within a row v1.1 goes by
        (patch row, patch column, channel, frame), v1.0 by (frame, patch row, patch column, channel).

    Raises:
        ConfigurationError: an odd number of frames or patches, or a grid that does not fit the tokens.
    """
    frames, patches, channels = patch_tokens.shape
    height, width = grid
    if frames % 2 or height % 2 or width % 2 or height * width != patches:
        raise ConfigurationError(
            f"{frames} frames of {patches} patches on a {height}x{width} grid cannot be merged in pairs of frames and "
            "2x2 patches; prepare the frames with prepare_video."
        )
    blocks = patch_tokens.reshape(frames // 2, 2, height // 2, 2, width // 2, 2, channels)
    #                     t, pair, by, py, bx, px, c
    order = (0, 2, 4, 3, 5, 6, 1) if fusion is Fusion.V1_1 else (0, 2, 4, 1, 3, 5, 6)
    return blocks.permute(order).reshape(-1, MERGED_PATCHES * channels)


class ConnectorV11(nn.Module):
    """Keys ``connector.*`` of v1.1: norm, then two linear layers."""

    def __init__(self, spatial_dim: int, language_dim: int) -> None:
        super().__init__()
        width = MERGED_PATCHES * spatial_dim
        self.ln_q = nn.RMSNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, language_dim))

    @property
    def last_layer(self) -> nn.Linear:
        """The layer that the result comes out of."""
        return cast(nn.Linear, self.mlp[-1])

    def forward(self, patch_tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Patch tokens [S, h*w, C] of one video -> additions to its visual tokens [S/2 * h/2 * w/2, D]."""
        added: torch.Tensor = self.mlp(self.ln_q(merged_rows(patch_tokens, grid, Fusion.V1_1)))
        return added


class ConnectorV10(nn.Module):
    """Keys ``vggt_embedding_merger.*`` of v1.0: the same, then a norm and two more layers at the language width."""

    def __init__(self, spatial_dim: int, language_dim: int) -> None:
        super().__init__()
        width = MERGED_PATCHES * spatial_dim
        self.token_merge_ln_q = nn.RMSNorm(width, eps=NORM_EPS)
        self.token_merge_mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, language_dim))
        self.vgg_to_language_ln_q = nn.RMSNorm(language_dim, eps=NORM_EPS)
        self.vgg_to_language_mlp = nn.Sequential(
            nn.Linear(language_dim, language_dim), nn.GELU(), nn.Linear(language_dim, language_dim)
        )

    @property
    def last_layer(self) -> nn.Linear:
        """The layer that the result comes out of."""
        return cast(nn.Linear, self.vgg_to_language_mlp[-1])

    def forward(self, patch_tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Patch tokens [S, h*w, C] of one video -> additions to its visual tokens [S/2 * h/2 * w/2, D]."""
        merged = self.token_merge_mlp(self.token_merge_ln_q(merged_rows(patch_tokens, grid, Fusion.V1_0)))
        added: torch.Tensor = self.vgg_to_language_mlp(self.vgg_to_language_ln_q(merged))
        return added


def connector_for(fusion: Fusion, *, spatial_dim: int, language_dim: int) -> ConnectorV10 | ConnectorV11:
    """The connector of ``fusion`` for spatial tokens of ``spatial_dim`` (twice VGGT's embed_dim)."""
    return (ConnectorV11 if fusion is Fusion.V1_1 else ConnectorV10)(spatial_dim, language_dim)
