"""The aggregator: per-frame patch tokens, then attention within each frame and over all frames in turn.

Method: Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.vggt.config import VggtConfig
from spatial_mllm_ros.models.vggt.dinov2 import DinoV2
from spatial_mllm_ros.models.vggt.layers import Block
from spatial_mllm_ros.models.vggt.rope import rope_tables

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORM_EPS = 1e-5


class Aggregator(nn.Module):
    """Images to tokens that know of all the other frames.

    ``embed`` treats each frame alone, so its result may be kept per frame and used again, exactly. ``trunk`` mixes the
    frames: frame 0 is the reference and adding or removing a frame changes every token.
    """

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed = DinoV2(config)
        # Index 0 of the second axis is for the first frame, index 1 for all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.register_tokens, dim))

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                Block(
                    dim,
                    config.heads,
                    mlp_ratio=config.mlp_ratio,
                    norm_eps=NORM_EPS,
                    qk_norm=True,
                    layer_scale=0.01,
                )
                for _ in range(config.depth)
            )

        self.frame_blocks = blocks()
        self.global_blocks = blocks()

    @property
    def patch_start(self) -> int:
        """Index of the first patch token in the token axis P of a layer."""
        return self.config.patch_start

    @property
    def dtype(self) -> torch.dtype:
        """The precision that embed and trunk run in: that of the weights."""
        return self.camera_token.dtype

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of ``images`` [B, S, 3, H, W].

        Raises:
            ConfigurationError: the tensor has another layout, or a side is not a multiple of the patch size.
        """
        size = self.config.patch_size_px
        if images.ndim != 5 or images.shape[2] != 3:
            raise ConfigurationError(f"VGGT takes images [B, S, 3, H, W]; got a tensor of shape {list(images.shape)}.")
        height, width = images.shape[3:]
        if height < size or width < size or height % size or width % size:
            raise ConfigurationError(
                f"VGGT takes images whose sides are multiples of {size} px; got {width}x{height}. Resize them first."
            )
        return height // size, width // size

    def embed(self, images: Tensor) -> Tensor:
        """Patch tokens of each frame by itself.

        Args:
            images: [B, S, 3, H, W], R G B in [0, 1], H and W multiples of the patch size, any floating type.

        Returns:
            [B, S, N, D] with N = (H / patch) * (W / patch), row by row, in the dtype of the weights.
        """
        self.grid_of(images)
        # Literals, not buffers: buffers that a checkpoint does not hold are lost when a model is built on "meta".
        mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1)
        normalised = ((images.float() - mean) / std).to(self.dtype)
        return self.patch_embed(normalised.flatten(0, 1)).unflatten(0, images.shape[:2])

    def trunk(self, patch_tokens: Tensor, grid: tuple[int, int], layers: Sequence[int]) -> dict[int, Tensor]:
        """Alternating attention over the tokens of ``embed``.

        Args:
            patch_tokens: [B, S, N, D].
            grid: rows and columns of patches, rows * columns = N.
            layers: which layers to keep, 0 to depth - 1. Blocks after the last one asked for are not run.

        Returns:
            for each layer asked for: [B, S, P, 2 D], P = patch_start + N: the output of its frame block beside that of
            its global block; camera token, register tokens, patch tokens.

        Raises:
            ConfigurationError: no layer or an unknown one is asked for, or the grid does not fit the tokens.
        """
        if not layers or any(not 0 <= layer < self.config.depth for layer in layers):
            raise ConfigurationError(
                f"Layers {list(layers)} of the aggregator were asked for; name some of 0 to {self.config.depth - 1}."
            )
        run = TrunkPass(self, patch_tokens, grid)
        kept: dict[int, Tensor] = {}
        for layer in range(max(layers) + 1):
            run.step()
            if layer in layers:
                kept[layer] = run.output()
        return kept

    def forward(self, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """``trunk(embed(images))``: images [B, S, 3, H, W] in [0, 1] -> layer -> tokens [B, S, P, 2 D]."""
        return self.trunk(self.embed(images), self.grid_of(images), layers)


class TrunkPass:
    """Alternating attention, layer by layer: a pass that is left between two blocks can go on from there later.

    Args:
        aggregator: whose blocks.
        patch_tokens: [B, S, N, D], as ``Aggregator.embed`` gives them.
        grid: rows and columns of patches, rows * columns = N.

    Raises:
        ConfigurationError: the grid does not fit the tokens.
    """

    def __init__(self, aggregator: Aggregator, patch_tokens: Tensor, grid: tuple[int, int]) -> None:
        _, frames, patches, dim = patch_tokens.shape
        if patches != grid[0] * grid[1]:
            raise ConfigurationError(f"A grid of {grid[0]}x{grid[1]} patches does not fit {patches} patch tokens.")
        # [1, 2, patch_start, D]
        first_and_others = torch.cat((aggregator.camera_token, aggregator.register_token), dim=2)
        which = torch.arange(frames, device=patch_tokens.device).clamp(max=1)  # 0, 1, 1, ...
        special = first_and_others[:, which].expand(patch_tokens.shape[0], -1, -1, -1)
        self._aggregator = aggregator
        self._tokens = torch.cat((special, patch_tokens), dim=2)  # [B, S, P, D]
        self._within: Tensor | None = None  # of the frame block whose global block has not run yet
        self._last_within = self._tokens
        self._rope_of_frame = rope_tables(
            grid,
            special_tokens=aggregator.patch_start,
            head_dim=dim // aggregator.config.heads,
            base=aggregator.config.rope_base,
            dtype=self._tokens.dtype,
            device=self._tokens.device,
        )
        self._rope_of_all = self._rope_of_frame.repeated(frames)
        self.layers_done = 0

    def step(self) -> None:
        """One more layer: its frame block, unless that has run already, and its global block."""
        batch, frames = self._tokens.shape[:2]
        if self._within is None:
            frame_block = self._aggregator.frame_blocks[self.layers_done]
            self._within = frame_block(self._tokens.flatten(0, 1), self._rope_of_frame).unflatten(0, (batch, frames))
        across = self._aggregator.global_blocks[self.layers_done](self._within.flatten(1, 2), self._rope_of_all)
        self._tokens = across.unflatten(1, (frames, -1))
        self._last_within, self._within = self._within, None
        self.layers_done += 1

    def output(self) -> Tensor:
        """[B, S, P, 2 D] of the layer done last: its frame block beside its global block."""
        return torch.cat((self._last_within, self._tokens), dim=-1)
