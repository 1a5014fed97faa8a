"""The published way from a video to an answer, with our models: every question computes everything again.

Spatial-MLLM (arXiv 2505.23747), section 3.3 and its public inference code: candidate frames spread over the video, all
of them jointly through VGGT, space-aware sampling, and the chosen frames through both visual encoders and the language
model. Work without use is left out (heads and layers that nothing reads): the comparison is between two ways to answer
and not between two programs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import StoppingCriteria, StoppingCriteriaList

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.wording import checkpoint_prompt
from spatial_mllm_ros.encoders.vggt import network_size
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import evaluation_frame_indices, prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import build_inputs
from spatial_mllm_ros.models.vggt import VggtOutput
from spatial_mllm_ros.scene.offline.selection import select_offline


def asked_text(question: Question, loaded: LoadedSpatialMllm) -> str:
    """The user's text that a model is asked with."""
    return checkpoint_prompt(question.text, question.options, loaded.fusion, numeric=question.form.is_number)


@dataclass(frozen=True)
class ColdAnswer:
    """What was generated and what it took, from the call; steady clock.

    Attributes:
        token_ids: generated, the token that ends an answer included.
        sampling_ns: choosing the frames; 0 where they were given.
        vision_ns: both visual encoders and the connector on the chosen frames, preparation included.
        first_token_ns, total_ns: from the call.
    """

    text: str
    token_ids: tuple[int, ...]
    sampling_ns: int
    vision_ns: int
    first_token_ns: int
    total_ns: int


class PublishedPipeline:
    """Answers from a whole video, or from chosen frames, keeping nothing between two questions.

    Args:
        loaded: the model; sampling uses its spatial encoder, as published.
        selected_frames: how many frames the language model sees.
        candidate_frames: how many frames sampling looks at.
        sampling_long_side_px: longer side at which it sees them (published: 518).
        max_new_tokens: longest answer.
    """

    def __init__(
        self,
        loaded: LoadedSpatialMllm,
        *,
        selected_frames: int = 16,
        candidate_frames: int = 128,
        sampling_long_side_px: int = 518,
        max_new_tokens: int,
    ) -> None:
        self._loaded = loaded
        self._selected_frames = selected_frames
        self._candidate_frames = candidate_frames
        self._long_side_px = sampling_long_side_px
        self._max_new_tokens = max_new_tokens

    @torch.inference_mode()
    def sample(self, video: Sequence[np.ndarray]) -> list[int]:
        """Which frames of a video, uint8 [H, W, 3] each and of one size, show most of the scene together; ascending."""
        indices = evaluation_frame_indices(len(video), min(self._candidate_frames, len(video)))
        points, confidence = self.points([video[index] for index in indices])
        chosen = select_offline(points, confidence, self._selected_frames)
        return [indices[index] for index in chosen.indices]

    @torch.inference_mode()
    def points(self, candidates: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """World points float32 [T, h, w, 3] and confidence [T, h, w] of the point head, all candidates in one pass."""
        height_px, width_px = candidates[0].shape[:2]
        width, height = network_size(width_px, height_px, long_side_px=self._long_side_px)
        device = self._loaded.model.device
        images = torch.stack([_resized(torch.tensor(frame, device=device), height, width) for frame in candidates])
        prediction = self._loaded.model.spatial_encoder(images[None], (VggtOutput.POINTS,))
        points, confidence = prediction.points_world, prediction.points_confidence
        return points[0].float().cpu().numpy(), confidence[0].float().cpu().numpy()

    def answer_video(self, question: Question, video: Sequence[np.ndarray]) -> ColdAnswer:
        """Samples, encodes, prefills, generates."""
        called_ns = time.monotonic_ns()
        chosen = self.sample(video)
        return self._answer(question, [video[index] for index in chosen], called_ns, time.monotonic_ns())

    def answer_frames(self, question: Question, frames: Sequence[np.ndarray]) -> ColdAnswer:
        """Encodes, prefills, generates."""
        called_ns = time.monotonic_ns()
        return self._answer(question, frames, called_ns, called_ns)

    @torch.inference_mode()
    def _answer(self, question: Question, frames: Sequence[np.ndarray], called_ns: int, sampled_ns: int) -> ColdAnswer:
        loaded = self._loaded
        prepared = prepare_video(frames, loaded.budget)
        visual_embeds = loaded.model.visual_embeddings(prepared)
        if visual_embeds.is_cuda:
            torch.cuda.synchronize(visual_embeds.device)
        seen_ns = time.monotonic_ns()
        inputs = build_inputs(loaded.tokenizer, prepared, asked_text(question, loaded)).to(loaded.model.device)
        clock = _FirstTokenClock()
        ids = loaded.model.generate(
            **inputs.for_generate(),
            visual_embeds=visual_embeds,
            do_sample=False,
            max_new_tokens=self._max_new_tokens,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        generated = ids[0, inputs.prompt_length :].tolist()
        return ColdAnswer(
            text=loaded.tokenizer.decode(generated, skip_special_tokens=True).strip(),
            token_ids=tuple(generated),
            sampling_ns=sampled_ns - called_ns,
            vision_ns=seen_ns - sampled_ns,
            first_token_ns=clock.first_token_ns - called_ns,
            total_ns=time.monotonic_ns() - called_ns,
        )


def _resized(frame: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
    """uint8 [H, W, 3] to float32 [3, height, width] in [0, 1]."""
    image = frame.permute(2, 0, 1)[None].float()
    if image.shape[2:] != (height_px, width_px):
        image = F.interpolate(image, size=(height_px, width_px), mode="bicubic", antialias=True)
    return image[0].clamp(0, 255).round() / 255


class _FirstTokenClock(StoppingCriteria):
    """Records when the first token was computed, after waiting for a GPU; it never stops the generation."""

    def __init__(self) -> None:
        self.first_token_ns = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.Tensor:
        if not self.first_token_ns:
            int(input_ids[0, -1])  # waits for the device
            self.first_token_ns = time.monotonic_ns()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
