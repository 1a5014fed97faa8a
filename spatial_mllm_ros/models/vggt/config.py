"""The sizes of a VGGT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spatial_mllm_ros.errors import ConfigurationError


@dataclass(frozen=True)
class VggtConfig:
    """Sizes of a VGGT; the defaults are those of the published VGGT-1B.

    Attributes:
        image_size_px: side of the square image that the learned position grid of the patch encoder was made for.
        patch_size_px: side of one patch; image sides must be multiples of it.
        embed_dim: width D of the tokens; the aggregator's output has 2 D (frame block beside global block).
        dino_depth, dino_heads: blocks and attention heads of the patch encoder.
        depth, heads: number of (frame block, global block) pairs and their attention heads.
        register_tokens: register tokens per frame, in the patch encoder and in the aggregator.
        mlp_ratio: hidden width of every MLP over its input width.
        rope_base: base of the rotary position frequencies.
        camera_trunk_depth, camera_heads, camera_iterations: blocks, heads and refinement steps of the camera head.
        dpt_layers: the four aggregator layers read by the dense heads.
        dpt_features, dpt_channels: widths inside the dense heads.
        dpt_frames_per_chunk: frames that a dense head takes at once, to bound memory; 0 means all of them.
        camera_head, depth_head, point_head: which heads exist. A model without one has no keys for it.
    """

    image_size_px: int = 518
    patch_size_px: int = 14
    embed_dim: int = 1024
    dino_depth: int = 24
    dino_heads: int = 16
    depth: int = 24
    heads: int = 16
    register_tokens: int = 4
    mlp_ratio: int = 4
    rope_base: float = 100.0
    camera_trunk_depth: int = 4
    camera_heads: int = 16
    camera_iterations: int = 4
    dpt_layers: tuple[int, ...] = (4, 11, 17, 23)
    dpt_features: int = 256
    dpt_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    dpt_frames_per_chunk: int = 8
    camera_head: bool = True
    depth_head: bool = True
    point_head: bool = True

    def __post_init__(self) -> None:
        for name in ("dpt_layers", "dpt_channels"):  # a configuration read from JSON has lists here
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in (
            *("image_size_px", "patch_size_px", "embed_dim", "dino_depth", "dino_heads", "depth", "heads"),
            *("register_tokens", "mlp_ratio", "rope_base", "camera_trunk_depth", "camera_heads", "camera_iterations"),
            "dpt_features",
        ):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"VggtConfig.{name} is {getattr(self, name)!r}; it must be above 0.")
        if self.dpt_frames_per_chunk < 0:
            raise ConfigurationError(
                f"VggtConfig.dpt_frames_per_chunk is {self.dpt_frames_per_chunk}; it must be 0 (no chunks) or above."
            )
        if self.image_size_px % self.patch_size_px:
            raise ConfigurationError(
                f"VggtConfig.image_size_px is {self.image_size_px}; it must be a multiple of patch_size_px "
                f"({self.patch_size_px})."
            )
        for name, width, multiple in (
            ("heads", self.embed_dim, 4),  # a head is split in (y, x) and each of these in two rotated halves
            ("dino_heads", self.embed_dim, 1),
            ("camera_heads", 2 * self.embed_dim, 1),
        ):
            if width % (multiple * getattr(self, name)):
                raise ConfigurationError(
                    f"VggtConfig.{name} is {getattr(self, name)}; the width {width} must be a multiple of "
                    f"{multiple} x {name}."
                )
        if self.depth_head or self.point_head:
            self._check_dense_heads()

    def _check_dense_heads(self) -> None:
        if len(self.dpt_layers) != 4 or any(not 0 <= layer < self.depth for layer in self.dpt_layers):
            raise ConfigurationError(
                f"VggtConfig.dpt_layers is {self.dpt_layers}; it must name four layers from 0 to {self.depth - 1}."
            )
        # Position embeddings have sine and cosine of two axes.
        channels = (*self.dpt_channels, self.dpt_features // 2)
        if len(channels) != 5 or any(width <= 0 or width % 4 for width in channels):
            raise ConfigurationError(
                f"VggtConfig.dpt_channels is {self.dpt_channels} and dpt_features {self.dpt_features}; expected four "
                "channel counts that are multiples of 4 and a feature count that is a multiple of 8."
            )

    @property
    def patch_start(self) -> int:
        """Index of the first patch token of a frame: after the camera token and the register tokens."""
        return 1 + self.register_tokens

    @classmethod
    def vggt_1b(cls, *, camera_head: bool = True, depth_head: bool = True, point_head: bool = True) -> VggtConfig:
        """The published VGGT-1B, with the heads asked for."""
        return cls(camera_head=camera_head, depth_head=depth_head, point_head=point_head)

    @classmethod
    def from_reference_meta(cls, meta: Mapping[str, Any]) -> VggtConfig:
        """The model that made a folder of reference outputs, from its ``meta.json`` (``config`` and ``fixed``)."""
        sizes, fixed = meta["config"], meta["fixed"]
        return cls(
            image_size_px=sizes["img_size"],
            patch_size_px=fixed["patch_size"],
            embed_dim=sizes["embed"],
            dino_depth=sizes["vit_depth"],
            dino_heads=sizes["vit_heads"],
            depth=sizes["depth"],
            heads=sizes["heads"],
            register_tokens=fixed["num_register_tokens"],
            mlp_ratio=fixed["mlp_ratio"],
            rope_base=float(fixed["rope_freq"]),
            camera_trunk_depth=sizes["trunk"],
            camera_heads=sizes["cam_heads"],
            camera_iterations=fixed["camera_iterations"],
            dpt_layers=tuple(sizes["dpt_idx"]),
            dpt_features=sizes["dpt_feat"],
            dpt_channels=tuple(sizes["dpt_out"]),
        )
