"""From frames to the beginning of a prompt that the language model has read, in steps that can be left and resumed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch

from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.prefill.interruption import Preempted, interruptible
from spatial_mllm_ros.models.prefill.prompt_cache import PromptCache, PromptPrefix
from spatial_mllm_ros.models.prefill.token_cache import TokenCache
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.spatial_mllm.mrope import mrope_position_ids
from spatial_mllm_ros.models.spatial_mllm.preparation import PATCH_PX, PixelBudget, PreparedVideo, prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import prefix_ids
from spatial_mllm_ros.models.spatial_mllm.tokenization import ChatTokenizer
from spatial_mllm_ros.models.vggt import TrunkPass

_PREFILL_TOKENS = 256  # read at once: what is lost at most when the prefill is left, and a bound of its memory
_ROOM_TOKENS = 512  # of question and answer behind the prefix


class PrefixBuild:
    """Makes a ``PromptPrefix`` of some frames.

    Each frame and each pair of frames is encoded by itself, never in a batch: so the tokens of a frame do not depend on
    the others, and those from the cache are those that would be computed, bit for bit.

    Args:
        frame_keys: name of each frame, of which equal ones mean equal pixels, in time order.
        tokens: patch tokens of frames and visual tokens of pairs, kept between builds.

    Raises:
        ConfigurationError: no frame.
    """

    def __init__(
        self,
        model: SpatialMllm,
        tokenizer: ChatTokenizer,
        budget: PixelBudget,
        frame_keys: Sequence[Hashable],
        tokens: TokenCache,
    ) -> None:
        if not frame_keys:
            raise ConfigurationError("A prompt was to be begun without a frame; give at least one.")
        self._model = model
        self._tokenizer = tokenizer
        self._budget = budget
        self._keys = list(frame_keys)
        last = len(self._keys) - 1
        # The encoders merge frames in pairs: an odd last one stands beside itself.
        self._pairs = [(first, min(first + 1, last)) for first in range(0, len(self._keys), 2)]
        self._token_cache = tokens
        # What there is so far, stage by stage; let go when the next stage has used it.
        self._patch_tokens: list[torch.Tensor] = []
        self._pair_tokens: list[torch.Tensor] = []
        self._trunk: TrunkPass | None = None
        self._spatial: torch.Tensor | None = None
        self._added: list[torch.Tensor] = []
        self._visual: torch.Tensor | None = None
        self._prefix: PromptPrefix | None = None
        self._read = 0

    def run(
        self,
        images: Sequence[np.ndarray],
        should_yield: Callable[[], bool],
        may_pause: Callable[[], bool] = lambda: False,
    ) -> PromptPrefix | None:
        """Goes on from where it was left.

        Args:
            images: uint8 [H, W, 3] R G B each, of one size; the same at every call.
            should_yield: asked before every transformer layer, or, where an engine is the spatial encoder, before and
                after its pass. The frame, pair or part of the prompt in work has to be begun again.
            may_pause: asked where nothing is lost: after each frame pair, layer of the aggregator, and part of the
                prompt. So whoever pauses it for others again and again still sees it end.

        Returns:
            the prefix; None when it was asked to yield or pause: call again to go on.

        Raises:
            ConfigurationError: frames of different size.
            EngineError: the vision encoders gave values that are not finite.
        """

        def rest() -> None:
            if should_yield() or may_pause():
                raise Preempted

        try:
            with torch.inference_mode(), interruptible(self._model.blocks, should_yield):
                if should_yield():
                    return None
                for _, stage in self.stages(images, rest):
                    stage()
        except Preempted:
            return None
        return self._prefix

    def stages(
        self, images: Sequence[np.ndarray], rest: Callable[[], None] = lambda: None
    ) -> list[tuple[str, Callable[[], None]]]:
        """The work by stage, in order, each by its name: to be called in inference mode; one that is done is quick.

        Args:
            rest: called where a stage may be left at no loss.
        """
        return [
            ("frames", lambda: self._encode_frames(images, rest)),
            ("trunk", lambda: self._mix_frames(images, rest)),
            ("connector", lambda: self._connect(rest)),
            ("prefill", lambda: self._prefill(rest)),
        ]

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self._size[0] // PATCH_PX, self._size[1] // PATCH_PX

    def _encode_frames(self, images: Sequence[np.ndarray], rest: Callable[[], None]) -> None:
        """DINOv2's patch tokens of each frame, Qwen's visual tokens of each pair."""
        if self._visual is not None or self._spatial is not None or self._trunk is not None:
            return
        if len(images) != len(self._keys) or any(image.shape != images[0].shape for image in images):
            raise ConfigurationError(
                f"{len(images)} images of the sizes {sorted({image.shape[:2] for image in images})} came for "
                f"{len(self._keys)} frames; give one per frame, all of one size."
            )
        self._size = self._budget.size_px(*images[0].shape[:2])
        for pair in self._pairs[len(self._pair_tokens) :]:
            prepared = _Lazily(lambda pair=pair: prepare_video([images[i] for i in pair], self._budget))  # type: ignore[misc]
            patch_tokens = [self._frame_tokens(index, side, prepared) for side, index in enumerate(pair)]
            self._pair_tokens.append(self._tokens_of_pair(pair, prepared))
            self._patch_tokens += patch_tokens
            rest()

    def _frame_tokens(self, index: int, side: int, prepared: _Lazily) -> torch.Tensor:
        if self._model.model.last_layer_source is not None:
            return torch.empty(0)  # an engine does all of it in one pass
        key = ("frame", self._keys[index], self._size)
        tokens = self._token_cache.get(key)
        if tokens is None:
            aggregator = self._model.spatial_encoder.aggregator
            image = prepared().spatial_images[side][None, None].to(aggregator.camera_token.device)
            tokens = aggregator.embed(image)[0, 0]
            self._token_cache.put(key, tokens)
        return tokens

    def _tokens_of_pair(self, pair: tuple[int, int], prepared: _Lazily) -> torch.Tensor:
        key = ("pair", *(self._keys[index] for index in pair), self._size)
        tokens = self._token_cache.get(key)
        if tokens is None:
            video = prepared()
            tokens = self._model.model.plain_visual_tokens(video.pixel_values_videos, video.video_grid_thw)
            self._token_cache.put(key, tokens)
        return tokens

    def _mix_frames(self, images: Sequence[np.ndarray], rest: Callable[[], None]) -> None:
        """The aggregator's last layer, over all frames jointly: no cache helps here, every frame sees every other."""
        if self._visual is not None or self._spatial is not None:
            return
        encoder = self._model.spatial_encoder
        source = self._model.model.last_layer_source
        if source is not None:
            video = prepare_video(images, self._budget).spatial_images
            self._spatial = source(video[None].to(encoder.aggregator.camera_token.device))[
                0, :, encoder.config.patch_start :
            ]
            return
        if self._trunk is None:
            self._trunk = TrunkPass(encoder.aggregator, torch.stack(self._patch_tokens)[None], self._grid)
            self._patch_tokens = []
        while self._trunk.layers_done < encoder.config.depth:
            self._trunk.step()
            rest()
        self._spatial = self._trunk.output()[0, :, encoder.config.patch_start :]
        self._trunk = None

    def _connect(self, rest: Callable[[], None]) -> None:
        if self._visual is not None or self._spatial is None:
            return
        while len(self._added) < len(self._pairs):  # pair by pair, which is what it merges, so that it can be left
            first = 2 * len(self._added)
            self._added.append(self._model.model.connected(self._spatial[first : first + 2], self._grid))
            rest()
        tokens = torch.cat(self._pair_tokens)
        visual = tokens + torch.cat(self._added).to(tokens.device, tokens.dtype)
        if not bool(torch.isfinite(visual).all()):
            raise EngineError("numbers", "The vision encoders gave values that are not finite; check the weights.")
        self._visual = visual
        self._spatial = None
        self._pair_tokens, self._patch_tokens, self._added = [], [], []

    def _prefill(self, rest: Callable[[], None]) -> None:
        """Keys and values of the prefix in the language model, some hundred tokens at a time."""
        visual = self._visual
        if visual is None:
            raise ConfigurationError("The prefix cannot be read before its visual tokens are made.")
        model = self._model
        token_ids = prefix_ids(self._tokenizer, visual_tokens=visual.shape[0])
        grid = torch.tensor([[len(self._pairs), *self._grid]])
        ids = torch.tensor([token_ids])
        positions, _ = mrope_position_ids(ids, None, model.model.mrope_rule, video_grid_thw=grid)
        if self._prefix is None:
            layers = len(model.model.language_model.layers)
            cache = PromptCache(layers=layers, tokens=len(token_ids), room=_ROOM_TOKENS)
            self._prefix = PromptPrefix(tuple(token_ids), visual.shape[0], int(positions.max()) + 1, cache)
        cache = self._prefix.cache
        cache.truncate(self._read)  # left in the middle of the layers, some of them hold more than the others
        embeds = model.model.embed(ids.to(model.device), visual_embeds=visual)
        while self._read < len(token_ids):
            part = slice(self._read, self._read + _PREFILL_TOKENS)
            model.read_on(embeds[:, part], positions[:, :, part].to(model.device), cache)
            self._read = min(self._read + _PREFILL_TOKENS, len(token_ids))
            if self._read < len(token_ids):
                rest()
        cache.seal()


class _Lazily:
    """A pair of frames that is prepared when it is asked for, once."""

    def __init__(self, prepare: Callable[[], PreparedVideo]) -> None:
        self._prepare = prepare
        self._prepared: PreparedVideo | None = None

    def __call__(self) -> PreparedVideo:
        self._prepared = self._prepared or self._prepare()
        return self._prepared
