"""Several questions about one clip in one pass: the frames are encoded once, the answers generated together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import INFERENCE_BUDGET, PreparedVideo, prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import build_inputs


class BenchmarkModel(Protocol):
    """What the runner needs from a model."""

    identity: ModelIdentity

    def answers(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> list[str]:
        """One text per prompt about the same frames (uint8 [H, W, 3] RGB), each independent of the others.

        Raises:
            SpatialMllmError: the frames or a prompt cannot be used.
        """
        ...


class FusedBenchmarkModel:
    """Spatial-MLLM, greedily. Frames are prepared as in the published evaluation (``INFERENCE_BUDGET``).

    Args:
        loaded: the checkpoint.
        max_new_tokens: longest answer.
        batch_size: most answers generated together; halved, for good, when memory runs out.
    """

    def __init__(self, loaded: LoadedSpatialMllm, *, max_new_tokens: int, batch_size: int) -> None:
        self._loaded = loaded
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self.identity = loaded.identity

    @torch.inference_mode()
    def answers(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> list[str]:
        """See BenchmarkModel."""
        prepared = prepare_video(list(images), INFERENCE_BUDGET)
        visual_embeds = self._loaded.model.visual_embeddings(prepared)
        texts: list[str] = []
        while len(texts) < len(prompts):
            part = prompts[len(texts) : len(texts) + self._batch_size]
            try:
                texts += self._generate(prepared, visual_embeds, part)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if self._batch_size == 1:
                    raise
                self._batch_size //= 2
        return texts

    def _generate(self, prepared: PreparedVideo, visual_embeds: torch.Tensor, prompts: Sequence[str]) -> list[str]:
        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        rows = [build_inputs(tokenizer, prepared, prompt) for prompt in prompts]
        length = max(row.prompt_length for row in rows)
        ids = torch.full((len(rows), length), tokenizer.pad_id)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, length - row.prompt_length :] = row.input_ids[0]
            mask[index, length - row.prompt_length :] = 1
        generated = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            video_grid_thw=rows[0].grid_thw.repeat(len(rows), 1).to(model.device),
            visual_embeds=visual_embeds.repeat(len(rows), 1),
            do_sample=False,
            max_new_tokens=self._max_new_tokens,
            pad_token_id=tokenizer.pad_id,
        )
        return [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in generated[:, length:]]
