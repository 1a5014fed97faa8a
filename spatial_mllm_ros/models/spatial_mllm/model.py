"""Spatial-MLLM: Qwen2.5-VL whose visual tokens are enriched by VGGT (arXiv 2505.23747).

A thin subclass of the model in transformers. It changes how visual tokens are made and how positions are counted;
generation, caches and attention back ends are the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.fused_qwen import VISUAL_INPUTS, FusedQwen
from spatial_mllm_ros.models.spatial_mllm.mrope import mrope_position_ids
from spatial_mllm_ros.models.spatial_mllm.preparation import PreparedImage, PreparedVideo
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig


class SpatialMllm(Qwen2_5_VLForConditionalGeneration):
    """The whole model. Load it with ``checkpoints.loading.load_spatial_mllm``.

    ``forward`` and ``generate`` take, beside the library's arguments, ``spatial_images`` / ``spatial_videos``: one
    [S, 3, H, W] in [0, 1] per image or video, S = 2 t; or, in place of pixels and these, ``visual_embeds`` [n, D]: one
    row per placeholder token in token order, as ``visual_embeddings`` gives them. The grids are needed in both cases,
    because positions depend on them.
    """

    def __init__(self, config: Qwen2_5_VLConfig, vggt: VggtConfig, fusion: Fusion) -> None:
        # Skips the parent's constructor, which would first build the model without the spatial encoder.
        super(Qwen2_5_VLForConditionalGeneration, self).__init__(config)
        self.fusion = fusion
        self.model = FusedQwen(config, vggt, fusion)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @property
    def spatial_encoder(self) -> VGGT:
        """The VGGT inside; the same weights serve fusion and geometry."""
        encoder: VGGT = self.model.spatial_encoder
        return encoder

    def take_last_layer_from(self, source: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        """Takes the spatial features from ``source``, for example an engine; None: from the VGGT inside.

        Args:
            source: images [1, S, 3, H, W] in [0, 1] -> last aggregator layer [1, S, P, 2 D], special tokens first, of
                the same weights.
        """
        self.model.last_layer_source = source

    def visual_embeddings(self, prepared: PreparedVideo | PreparedImage) -> torch.Tensor:
        """Fused visual tokens [tokens, D] of one video or image, which serve any number of questions.

        Raises:
            ConfigurationError: the frames do not fit their grid.
        """
        if isinstance(prepared, PreparedVideo):
            pixels, grid_thw = prepared.pixel_values_videos, prepared.video_grid_thw
        else:
            pixels, grid_thw = prepared.pixel_values, prepared.image_grid_thw
        tokens: torch.Tensor = self.model.fused_tokens(pixels, grid_thw, [prepared.spatial_images])
        return tokens

    def read_on(
        self, embeds: torch.Tensor, positions: torch.Tensor, cache: Cache, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Appends tokens to ``cache`` with the language model alone, without the checks of a whole prompt.

        Args:
            embeds: [B, n, D].
            positions: int64 [3, B, n], mRoPE.
            mask: int64 [B, tokens in the cache + n], 0 at padding; None where nothing is padded.

        Returns:
            the last token's hidden state [B, D]; ``lm_head`` turns it into logits.
        """
        hidden: torch.Tensor = self.model.language_model(
            inputs_embeds=embeds, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return hidden[:, -1]

    def next_logits(
        self, token_ids: torch.Tensor, positions: torch.Tensor, cache: Cache, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Appends text to ``cache``; logits [B, vocabulary] of the token after.

        Args:
            token_ids: int64 [B, n].
            positions: int64 [B, n], the same on all three axes of mRoPE.
            mask: see ``read_on``.
        """
        embeds = self.get_input_embeddings()(token_ids)
        logits: torch.Tensor = self.lm_head(self.read_on(embeds, positions.expand(3, -1, -1), cache, mask))
        return logits

    @property
    def blocks(self) -> list[nn.Module]:
        """Every transformer layer, of both vision encoders and of the language model, and the connector."""
        aggregator = self.spatial_encoder.aggregator
        return [
            *self.model.visual.blocks,
            *aggregator.patch_embed.blocks,
            *aggregator.frame_blocks,
            *aggregator.global_blocks,
            self.model.connector,
            *self.model.language_model.layers,
        ]

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        spatial_images: Sequence[torch.Tensor] | torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        spatial_videos: Sequence[torch.Tensor] | torch.Tensor | None = None,
        visual_embeds: torch.Tensor | None = None,
        second_per_grid_ts: Sequence[float] | torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, L, vocabulary] (the last ``logits_to_keep`` positions, 0 = all), and with labels the loss.

        Raises:
            ConfigurationError: visual inputs that do not fit the tokens or each other.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            spatial_images=spatial_images,
            pixel_values_videos=pixel_values_videos,
            video_grid_thw=video_grid_thw,
            spatial_videos=spatial_videos,
            visual_embeds=visual_embeds,
            second_per_grid_ts=second_per_grid_ts,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else slice(None)
        hidden = outputs.last_hidden_state[:, logits_to_keep if isinstance(logits_to_keep, torch.Tensor) else kept]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *args: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """As the library's; visual inputs, which it does not know, go to the one pass that holds their placeholders."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )
        decoding = not is_first_iteration and kwargs.get("use_cache", True)
        ids = inputs.get("input_ids")
        # With a cache of the prompt's beginning, the visual tokens may be in the cache already.
        in_cache = ids is not None and not bool(self.model.is_placeholder(ids).any())
        if decoding or in_cache:
            for name in VISUAL_INPUTS:
                inputs.pop(name, None)
        return inputs

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """[4, B, L]: text positions (for the mask), then mRoPE's three axes, counted over the whole prompt."""
        ids = model_kwargs.get("input_ids")
        if ids is None or ids.shape[1] == 0:
            ids = inputs_tensor
        mask = model_kwargs.get("attention_mask")
        if ids.ndim != 2 or ids.is_floating_point() or (mask is not None and mask.shape[1] != ids.shape[1]):
            raise ConfigurationError(
                "generate() counts positions from input_ids of the whole prompt, also when a cache holds its "
                "beginning; pass them, with an attention_mask of the same length."
            )
        text = GenerationMixin._prepare_position_ids_for_generation(self, inputs_tensor, model_kwargs)
        positions, self.model.rope_deltas = mrope_position_ids(
            ids,
            mask,
            self.model.mrope_rule,
            image_grid_thw=model_kwargs.get("image_grid_thw"),
            video_grid_thw=model_kwargs.get("video_grid_thw"),
            second_per_grid_ts=model_kwargs.get("second_per_grid_ts"),
        )
        return torch.cat([text[None].expand(1, *ids.shape).to(positions.device), positions])

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Repeats each sample (several answers, beams); visual tokens are made once and their rows repeated.

        The library's method repeats pixel rows as if they were samples.
        """
        if expand_size == 1 or input_ids is None:
            return input_ids, model_kwargs
        visual = {name: model_kwargs.pop(name) for name in VISUAL_INPUTS if name in model_kwargs}
        model_kwargs.pop("second_per_grid_ts", None)  # the positions are counted by now
        rows = self.model.visual_rows(input_ids, **visual)
        for name, value in model_kwargs.items():
            if isinstance(value, torch.Tensor):
                batch_axis = 1 if name == "position_ids" and value.ndim == 3 else 0
                model_kwargs[name] = value.repeat_interleave(expand_size, dim=batch_axis)
        if rows is not None:
            counts = self.model.is_placeholder(input_ids).sum(1).tolist()
            model_kwargs["visual_embeds"] = torch.cat([part.repeat(expand_size, 1) for part in rows.split(counts)])
        return input_ids.repeat_interleave(expand_size, dim=0), model_kwargs
