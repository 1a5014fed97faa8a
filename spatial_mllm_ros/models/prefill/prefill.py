"""Reads the beginning of a prompt, system text and video, into the language model's cache, in parts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from spatial_mllm_ros.models.prefill.prompt_cache import PromptCache, PromptPrefix
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.spatial_mllm.mrope import mrope_position_ids
from spatial_mllm_ros.models.spatial_mllm.prompts import prefix_ids
from spatial_mllm_ros.models.spatial_mllm.tokenization import ChatTokenizer

_PREFILL_TOKENS = 256  # read at once: the most that is lost when the prefill is interrupted, and a bound of its memory
_ROOM_TOKENS = 512  # for question and answer behind the prefix


class Prefill:
    """Makes a ``PromptPrefix`` of the visual tokens of one video. Use it in inference mode.

    Args:
        visual: [n, D], one row per placeholder of the video.
        grid_thw: frame pairs, rows and columns of patches.

    Raises:
        ConfigurationError: another number of rows than the grid has placeholders.
    """

    def __init__(
        self, model: SpatialMllm, tokenizer: ChatTokenizer, visual: torch.Tensor, grid_thw: tuple[int, int, int]
    ) -> None:
        self._model = model
        token_ids = prefix_ids(tokenizer, visual_tokens=visual.shape[0])
        ids = torch.tensor([token_ids])
        positions, _ = mrope_position_ids(
            ids, None, model.model.mrope_rule, video_grid_thw=torch.tensor([list(grid_thw)])
        )
        self._embeds = model.model.embed(ids.to(model.device), visual_embeds=visual)
        self._positions = positions.to(model.device)
        layers = len(model.model.language_model.layers)
        cache = PromptCache(layers=layers, tokens=len(token_ids), room=_ROOM_TOKENS)
        self._prefix = PromptPrefix(tuple(token_ids), grid_thw, int(positions.max()) + 1, cache)
        self._read = 0

    def run(self, rest: Callable[[], None] = lambda: None) -> PromptPrefix:
        """Begins or continues; ``rest`` is called between two parts, and may raise to leave the rest for later."""
        cache, length = self._prefix.cache, len(self._prefix.token_ids)
        cache.truncate(self._read)  # an interrupted part is in the cache of some layers and not of others
        while self._read < length:
            part = slice(self._read, self._read + _PREFILL_TOKENS)
            self._model.read_on(self._embeds[:, part], self._positions[:, :, part], cache)
            self._read = min(self._read + _PREFILL_TOKENS, length)
            if self._read < length:
                rest()
        cache.seal()
        return self._prefix
