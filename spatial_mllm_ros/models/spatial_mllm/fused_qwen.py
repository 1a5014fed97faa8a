"""The inner model of Spatial-MLLM: vision encoders, connector, language model (arXiv 2505.23747, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import can_return_tuple

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion, connector_for
from spatial_mllm_ros.models.spatial_mllm.mrope import MropeRule, mrope_position_ids
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig

#: Inputs of forward and generate that only the pass which holds the placeholder tokens needs.
VISUAL_INPUTS = (
    "pixel_values",
    "image_grid_thw",
    "spatial_images",
    "pixel_values_videos",
    "video_grid_thw",
    "spatial_videos",
    "visual_embeds",
)


class FusedQwen(Qwen2_5_VLModel):
    """Vision encoders, connector and language model, without the output layer."""

    def __init__(self, config: Qwen2_5_VLConfig, vggt: VggtConfig, fusion: Fusion) -> None:
        super().__init__(config)
        self.spatial_encoder = VGGT(vggt)
        self.connector = connector_for(
            fusion, spatial_dim=2 * vggt.embed_dim, language_dim=config.text_config.hidden_size
        )
        #: Images [1, S, 3, H, W] in [0, 1] -> last aggregator layer [1, S, P, 2 D], in another runtime than torch;
        #: None: ``spatial_encoder`` makes it.
        self.last_layer_source: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.mrope_rule = MropeRule(
            image_token_id=config.image_token_id,
            video_token_id=config.video_token_id,
            spatial_merge_size=config.vision_config.spatial_merge_size,
            tokens_per_second=config.vision_config.tokens_per_second,
        )

    def fused_tokens(
        self, pixels: torch.Tensor, grid_thw: torch.Tensor, spatial: Sequence[torch.Tensor] | torch.Tensor
    ) -> torch.Tensor:
        """Visual tokens of videos (or of images, which are videos of two equal frames).

        Args:
            pixels: [rows, 1176], patch rows of all videos.
            grid_thw: int64 [videos, 3].
            spatial: one [S, 3, H, W] in [0, 1] per video, S = 2 t, H and W 14 times the grid.

        Returns:
            [tokens, D] in order of the videos, in the dtype of Qwen's vision encoder.

        Raises:
            ConfigurationError: frames that do not fit the grid.
        """
        grids: list[list[int]] = grid_thw.tolist()
        _check_spatial(grids, spatial, patch_px=self.config.vision_config.patch_size)
        tokens = self.plain_visual_tokens(pixels, grid_thw)
        added = [self.spatial_tokens(frames, (h, w)) for frames, (_, h, w) in zip(spatial, grids, strict=True)]
        return tokens + torch.cat(added).to(tokens.device, tokens.dtype)

    def plain_visual_tokens(self, pixels: torch.Tensor, grid_thw: torch.Tensor) -> torch.Tensor:
        """Qwen2.5-VL's own visual tokens [tokens, D] of patch rows [rows, 1176]."""
        device = self.visual.device
        rows = pixels.to(device, self.visual.dtype)
        tokens: torch.Tensor = self.visual(rows, grid_thw=grid_thw.to(device)).pooler_output
        return tokens

    def spatial_tokens(self, frames: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """What the spatial encoder adds for one video: frames [S, 3, H, W] in [0, 1] -> [S/2 * h/2 * w/2, D]."""
        camera_token = self.spatial_encoder.aggregator.camera_token
        images = frames[None].to(camera_token.device)
        if self.last_layer_source is None:
            patch_tokens = self.spatial_encoder.last_layer_patch_tokens(images)[0]
        else:
            patch_tokens = self.last_layer_source(images)[0, :, self.spatial_encoder.config.patch_start :]
        return self.connected(patch_tokens, grid)

    def connected(self, patch_tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The connector alone: last aggregator layer [S, N, 2 D'] without special tokens -> [S/2 * h/2 * w/2, D]."""
        weight = next(self.connector.parameters())
        added: torch.Tensor = self.connector(patch_tokens.to(weight.device, weight.dtype), grid)
        return added

    def visual_rows(
        self,
        input_ids: torch.Tensor,
        *,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        spatial_images: Sequence[torch.Tensor] | torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        spatial_videos: Sequence[torch.Tensor] | torch.Tensor | None = None,
        visual_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """One embedding [n, D] per placeholder token of ``input_ids`` [B, L], in token order; None without any input.

        Raises:
            ConfigurationError: an input without its partners, or another number of embeddings than placeholders.
        """
        kinds = input_ids[self.is_placeholder(input_ids)]
        given = {
            self.config.image_token_id: ("image", pixel_values, image_grid_thw, spatial_images),
            self.config.video_token_id: ("video", pixel_values_videos, video_grid_thw, spatial_videos),
        }
        if visual_embeds is not None:
            if pixel_values is not None or pixel_values_videos is not None:
                raise ConfigurationError("Give either visual_embeds or pixels, not both: the embeddings replace them.")
            if visual_embeds.shape[0] != kinds.numel():
                raise ConfigurationError(
                    f"visual_embeds has {visual_embeds.shape[0]} rows for {kinds.numel()} placeholder tokens; build "
                    "the prompt for the same frames."
                )
            return visual_embeds
        rows: torch.Tensor | None = None
        for token_id, (kind, pixels, grid_thw, spatial) in given.items():
            if pixels is None:
                continue
            if grid_thw is None or spatial is None:
                raise ConfigurationError(f"Pixels of a {kind} came without its grid or without its spatial_{kind}s.")
            tokens = self.fused_tokens(pixels, grid_thw, spatial)
            of_kind = kinds == token_id
            if int(of_kind.sum()) != tokens.shape[0]:
                raise ConfigurationError(
                    f"The {kind}s make {tokens.shape[0]} visual tokens but the prompt holds {int(of_kind.sum())} "
                    f"{kind} placeholders; build the prompt for the same frames."
                )
            if rows is None:
                rows = tokens.new_zeros(kinds.numel(), tokens.shape[1])
            rows[of_kind.to(rows.device)] = tokens
        return rows

    def is_placeholder(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Which tokens stand for visual tokens, bool like ``input_ids``."""
        return (input_ids == self.config.image_token_id) | (input_ids == self.config.video_token_id)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        second_per_grid_ts: Sequence[float] | torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As the library's, with ``spatial_*`` beside the pixels or ``visual_embeds`` in their place.

        Raises:
            ConfigurationError: visual inputs that do not fit the tokens or each other.
        """
        visual = {name: kwargs.pop(name, None) for name in VISUAL_INPUTS if not name.endswith("grid_thw")}
        if inputs_embeds is None:
            if input_ids is None:
                raise ConfigurationError("The model was given neither input_ids nor inputs_embeds.")
            inputs_embeds = self.embed(
                input_ids, image_grid_thw=image_grid_thw, video_grid_thw=video_grid_thw, **visual
            )
        elif any(value is not None for value in visual.values()):
            raise ConfigurationError("Give visual inputs with input_ids, not with inputs_embeds.")
        if position_ids is None:
            position_ids = self._positions(
                input_ids,
                inputs_embeds,
                attention_mask,
                past_key_values,
                image_grid_thw,
                video_grid_thw,
                second_per_grid_ts,
            )
        outputs: BaseModelOutputWithPast = self.language_model(
            input_ids=None,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return outputs

    def embed(self, input_ids: torch.Tensor, **visual: Any) -> torch.Tensor:
        """Input embeddings [B, L, D] with the visual tokens in the place of their placeholders."""
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids)
        rows = self.visual_rows(input_ids, **visual)
        if rows is None:
            return embeds
        mask = self.is_placeholder(input_ids).unsqueeze(-1).expand_as(embeds)
        return embeds.masked_scatter(mask, rows.to(embeds.device, embeds.dtype))

    def _positions(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        past_key_values: Any,
        image_grid_thw: torch.Tensor | None,
        video_grid_thw: torch.Tensor | None,
        second_per_grid_ts: Sequence[float] | torch.Tensor | None,
    ) -> torch.Tensor:
        """Positions int64 [3, B, L] of a first pass, or of tokens that continue a cache."""
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        if past == 0:
            if input_ids is None:
                raise ConfigurationError("Positions cannot be told from inputs_embeds; pass position_ids with them.")
            positions, self.rope_deltas = mrope_position_ids(
                input_ids,
                attention_mask,
                self.mrope_rule,
                image_grid_thw=image_grid_thw,
                video_grid_thw=video_grid_thw,
                second_per_grid_ts=second_per_grid_ts,
            )
            return positions
        batch, length = inputs_embeds.shape[:2]
        if self.rope_deltas is None or self.rope_deltas.shape[0] != batch:
            raise ConfigurationError(
                "The cache continues a prompt whose positions are not known here; pass position_ids, or use generate()."
            )
        ahead = torch.arange(past, past + length, device=inputs_embeds.device)
        return (ahead + self.rope_deltas.to(inputs_embeds.device)).expand(3, batch, length)


def _check_spatial(grids: list[list[int]], spatial: Sequence[torch.Tensor] | torch.Tensor, patch_px: int) -> None:
    if len(spatial) != len(grids):
        raise ConfigurationError(
            f"{len(spatial)} spatial inputs came with {len(grids)} grids; give one [S, 3, H, W] per image or video."
        )
    for index, (frames, (t, h, w)) in enumerate(zip(spatial, grids, strict=True)):
        expected = (2 * t, 3, patch_px * h, patch_px * w)
        if tuple(frames.shape) != expected:
            raise ConfigurationError(
                f"Spatial input {index} has shape {list(frames.shape)}, its grid {t}x{h}x{w} needs {list(expected)}; "
                "both encoders must see the same frames, prepare them with prepare_video or prepare_image."
            )
