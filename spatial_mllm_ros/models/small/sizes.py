"""The sizes of all models that this package makes itself, from a few megabytes to the published one."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.preparation import TRAINING_BUDGET, PixelBudget
from spatial_mllm_ros.models.vggt import VggtConfig


@dataclass(frozen=True)
class SmallArchitecture:
    """The sizes of a Spatial-MLLM v1.1.

    Attributes:
        vggt: the spatial encoder.
        hidden_size, intermediate_size, layers, heads, kv_heads: of the language model.
        vision_hidden_size, vision_intermediate_size, vision_layers, vision_heads: of Qwen's vision encoder.
        vision_full_attention: which of its layers attend over a whole frame pair instead of within windows.
        vision_window_px: side of these windows.
        budget: the frame sizes that the model is trained and asked with; None: those of the published models.
    """

    vggt: VggtConfig
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    vision_hidden_size: int
    vision_intermediate_size: int
    vision_layers: int
    vision_heads: int
    vision_full_attention: tuple[int, ...]
    vision_window_px: int = 112
    budget: PixelBudget | None = None

    def __post_init__(self) -> None:
        for name, width, heads in (
            ("heads", self.hidden_size, self.heads),
            ("vision_heads", self.vision_hidden_size, self.vision_heads),
        ):
            if heads < 1 or width % (4 * heads):
                raise ConfigurationError(
                    f"SmallArchitecture.{name} is {heads}; the width {width} must be a multiple of 4 x {name}."
                )
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ConfigurationError(
                f"SmallArchitecture.kv_heads is {self.kv_heads}; heads ({self.heads}) must be a multiple of it."
            )
        if any(not 0 <= layer < self.vision_layers for layer in self.vision_full_attention):
            raise ConfigurationError(
                f"SmallArchitecture.vision_full_attention is {self.vision_full_attention}; it must name layers from 0 "
                f"to {self.vision_layers - 1}."
            )


#: The model with random weights of tests and of a first start: a few megabytes. It has two pairs of blocks with one
#: head, because attention over all tokens of 16 frames is what a CPU spends its time on.
RANDOM = SmallArchitecture(
    vggt=VggtConfig(
        image_size_px=70,
        embed_dim=32,
        dino_depth=2,
        dino_heads=2,
        depth=2,
        heads=1,
        camera_trunk_depth=2,
        camera_heads=2,
        dpt_layers=(0, 0, 1, 1),
        dpt_features=16,
        dpt_channels=(16, 16, 32, 32),
    ),
    hidden_size=64,
    intermediate_size=160,
    layers=3,
    heads=4,
    kv_heads=2,
    vision_hidden_size=64,
    vision_intermediate_size=96,
    vision_layers=2,
    vision_heads=4,
    vision_full_attention=(1,),
)

#: The sizes of the small model that is trained on procedural rooms: under 12 M parameters, 25 MB in half precision.
TINY_ROOMS = SmallArchitecture(
    vggt=VggtConfig(
        image_size_px=224,
        embed_dim=96,
        dino_depth=3,
        dino_heads=3,
        depth=4,
        heads=3,
        camera_trunk_depth=2,
        camera_heads=4,
        dpt_layers=(0, 1, 2, 3),
        # The dense heads work on every pixel: twice as wide, they would take three quarters of a training step.
        dpt_features=32,
        dpt_channels=(32, 32, 64, 64),
    ),
    hidden_size=256,
    intermediate_size=576,
    layers=5,
    heads=4,
    kv_heads=2,
    vision_hidden_size=160,
    vision_intermediate_size=448,
    vision_layers=4,
    vision_heads=4,
    vision_full_attention=(1, 3),
    budget=PixelBudget(min_px=112 * 84, max_px=112 * 84, pil_resize=True),
)

#: Between the bundled model and the published one; for measurements.
MID = SmallArchitecture(
    vggt=VggtConfig(
        embed_dim=256,
        dino_depth=6,
        dino_heads=4,
        depth=6,
        heads=4,
        camera_trunk_depth=2,
        camera_heads=4,
        dpt_layers=(1, 2, 4, 5),
        dpt_features=64,
        dpt_channels=(64, 128, 256, 256),
    ),
    hidden_size=512,
    intermediate_size=1408,
    layers=12,
    heads=8,
    kv_heads=2,
    vision_hidden_size=320,
    vision_intermediate_size=896,
    vision_layers=8,
    vision_heads=8,
    vision_full_attention=(3, 7),
    budget=PixelBudget(min_px=252 * 196, max_px=252 * 196, pil_resize=True),
)

#: Qwen2.5-VL-3B and VGGT-1B, as in the published Spatial-MLLM.
FULL = SmallArchitecture(
    vggt=VggtConfig.vggt_1b(),
    hidden_size=2048,
    intermediate_size=11008,
    layers=36,
    heads=16,
    kv_heads=2,
    vision_hidden_size=1280,
    vision_intermediate_size=3420,
    vision_layers=32,
    vision_heads=16,
    vision_full_attention=(7, 15, 23, 31),
    budget=TRAINING_BUDGET,
)

#: The smallest spatial encoder that is measured on its own.
TINY_VGGT = VggtConfig(
    image_size_px=70,
    embed_dim=64,
    dino_depth=2,
    dino_heads=2,
    depth=4,
    heads=2,
    camera_trunk_depth=2,
    camera_heads=2,
    dpt_layers=(0, 1, 2, 3),
    dpt_features=32,
    dpt_channels=(32, 32, 64, 64),
)
