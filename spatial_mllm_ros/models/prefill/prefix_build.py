"""From frames to the beginning of a prompt that the language model has read, in steps that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.prefill.interruption import Interrupted, interruptible
from spatial_mllm_ros.models.prefill.prefill import Prefill
from spatial_mllm_ros.models.prefill.prompt_cache import PromptPrefix
from spatial_mllm_ros.models.prefill.token_cache import TokenCache
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import PATCH_PX, PixelBudget, PreparedVideo, prepare_video
from spatial_mllm_ros.models.spatial_mllm.tokenization import ChatTokenizer
from spatial_mllm_ros.models.vggt import TrunkPass


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """What the language model is shown of a video.

    Attributes:
        plain: [n, D], of Qwen's vision encoder alone.
        added: [n, D], what the connector adds to them.
        grid_thw: frame pairs, rows and columns of patches.
    """

    plain: torch.Tensor
    added: torch.Tensor
    grid_thw: tuple[int, int, int]

    @property
    def fused(self) -> torch.Tensor:
        """[n, D], the sum."""
        return self.plain + self.added


class PrefixBuild:
    """Makes a ``PromptPrefix`` of some frames.

    Each frame and each pair of frames is encoded by itself, never in a batch. Its tokens therefore do not depend on the
    other frames, and tokens from the cache equal computed ones bit for bit.

    Args:
        frame_keys: a name of each frame, in time order; equal names mean equal pixels.
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
            raise ConfigurationError("A context was requested without a frame; give at least one.")
        self._model = model
        self._tokenizer = tokenizer
        self._budget = budget
        self._keys = list(frame_keys)
        last = len(self._keys) - 1
        # The encoders merge frames in pairs; a last frame without a partner is paired with itself.
        self._pairs = [(first, min(first + 1, last)) for first in range(0, len(self._keys), 2)]
        self._token_cache = tokens
        # Results by stage, released when the next stage has used them.
        self._patch_tokens: list[torch.Tensor] = []
        self._pair_tokens: list[torch.Tensor] = []
        self._trunk: TrunkPass | None = None
        self._spatial: torch.Tensor | None = None
        self._added: list[torch.Tensor] = []
        self._visual: VisualTokens | None = None
        self._begun: Prefill | None = None
        self._prefix: PromptPrefix | None = None

    def run(
        self,
        images: Sequence[np.ndarray],
        interrupt: Callable[[], bool],
        pause_requested: Callable[[], bool] = lambda: False,
    ) -> PromptPrefix | None:
        """Begins or continues the build.

        Args:
            images: uint8 [H, W, 3] R G B each, of one size; the same at every call.
            interrupt: called before every transformer layer, or, where an engine is the spatial encoder, before and
                after its pass. The present frame, pair or part of the prompt has to be begun again.
            pause_requested: called where no work is lost: after each frame pair, layer of the aggregator, and part of
                the prompt. A build that is paused at every such point still ends.

        Returns:
            the prefix; None when the build was interrupted or paused: call again to continue.

        Raises:
            ConfigurationError: frames of different size.
            EngineError: the vision encoders gave values that are not finite.
        """

        def rest() -> None:
            if interrupt() or pause_requested():
                raise Interrupted

        try:
            with torch.inference_mode(), interruptible(self._model.blocks, interrupt):
                if interrupt():
                    return None
                for _, stage in self.stages(images, rest):
                    stage()
        except Interrupted:
            return None
        return self._prefix

    def stages(
        self, images: Sequence[np.ndarray], rest: Callable[[], None] = lambda: None
    ) -> list[tuple[str, Callable[[], None]]]:
        """The stages with their names, in order, to be called in inference mode; a finished stage returns at once.

        Args:
            rest: called where no work is lost; it may raise to end the stage.
        """
        return [
            ("frames", lambda: self._encode_frames(images, rest)),
            ("trunk", lambda: self._mix_frames(images, rest)),
            ("connector", lambda: self._connect(rest)),
            ("prefill", lambda: self._prefill(rest)),
        ]

    @torch.inference_mode()
    def visual_tokens(self, images: Sequence[np.ndarray]) -> VisualTokens:
        """All stages but the prefill, in one call; see ``run``.

        Raises:
            ConfigurationError, EngineError: see ``run``.
        """
        for name, stage in self.stages(images):
            if name != "prefill":
                stage()
        if self._visual is None:
            raise EngineError("numbers", "The vision encoders made no visual tokens; please report it with the log.")
        return self._visual

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
            return torch.empty(0)  # the engine encodes all frames in one pass
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
        """The aggregator's last layer over all frames. Nothing is cached, because each frame attends to all others."""
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
        while len(self._added) < len(self._pairs):  # the connector merges pairs, so that it can be interrupted between
            first = 2 * len(self._added)
            self._added.append(self._model.model.connected(self._spatial[first : first + 2], self._grid))
            rest()
        tokens = torch.cat(self._pair_tokens)
        added = torch.cat(self._added).to(tokens.device, tokens.dtype)
        visual = VisualTokens(tokens, added, (len(self._pairs), *self._grid))
        if not bool(torch.isfinite(visual.fused).all()):
            raise EngineError("numbers", "The vision encoders gave values that are not finite; check the weights.")
        self._visual = visual
        self._spatial = None
        self._pair_tokens, self._patch_tokens, self._added = [], [], []

    def _prefill(self, rest: Callable[[], None]) -> None:
        """Keys and values of the prefix in the language model."""
        if self._prefix is not None:
            return
        if self._begun is None:
            if self._visual is None:
                raise ConfigurationError("The prefix cannot be read before its visual tokens are made.")
            self._begun = Prefill(self._model, self._tokenizer, self._visual.fused, self._visual.grid_thw)
        self._prefix = self._begun.run(rest)


class _Lazily:
    """A pair of frames that is prepared when it is first needed."""

    def __init__(self, prepare: Callable[[], PreparedVideo]) -> None:
        self._prepare = prepare
        self._prepared: PreparedVideo | None = None

    def __call__(self) -> PreparedVideo:
        self._prepared = self._prepared or self._prepare()
        return self._prepared
