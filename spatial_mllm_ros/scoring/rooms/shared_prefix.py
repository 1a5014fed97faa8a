"""Many questions about one clip for the price of one look: the video's part of the prompt is computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import PreparedVideo
from spatial_mllm_ros.models.spatial_mllm.prompts import context_ids, question_ids


@torch.inference_mode()
def shared_prefix_answers(
    loaded: LoadedSpatialMllm,
    prepared: PreparedVideo,
    visual_embeds: torch.Tensor,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
) -> list[str]:
    """One greedy answer per prompt, the same as if each were asked alone (up to rounding in the last bit).

    The cache of system text and video is filled once and repeated; the questions, padded on the left to one length,
    continue it together.

    Args:
        prepared: the video; only its grid is used.
        visual_embeds: [tokens, D], what the placeholders stand for.
        prompts: what ``user_text`` gives.

    Raises:
        QuestionError: a prompt that cannot be encoded.
        ConfigurationError: embeddings of another number than the video's placeholders.
    """
    if not prompts:
        return []
    model, tokenizer, device = loaded.model, loaded.tokenizer, loaded.model.device
    context = context_ids(tokenizer, prepared)
    endings = [question_ids(tokenizer, prompt) for prompt in prompts]
    grid = prepared.video_grid_thw.to(device)
    begin = torch.tensor([context], device=device)
    cache = model(
        input_ids=begin,
        attention_mask=torch.ones_like(begin),
        video_grid_thw=grid,
        visual_embeds=visual_embeds,
        past_key_values=DynamicCache(config=model.config),
        use_cache=True,
        logits_to_keep=1,
    ).past_key_values
    cache.batch_repeat_interleave(len(prompts))
    longest = max(map(len, endings))
    rows = [context + [tokenizer.pad_id] * (longest - len(ending)) + ending for ending in endings]
    ids = torch.tensor(rows, device=device)
    mask = torch.ones_like(ids)
    for row, ending in enumerate(endings):
        mask[row, len(context) : len(context) + longest - len(ending)] = 0
    generated = model.generate(
        input_ids=ids,
        attention_mask=mask,
        video_grid_thw=grid.repeat(len(prompts), 1),
        past_key_values=cache,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_id,
    )
    return [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in generated[:, ids.shape[1] :]]
