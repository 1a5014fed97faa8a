"""Spatial-MLLM as an answer model: frames and a question in, generated text out (arXiv 2505.23747)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from spatial_mllm_ros.answering.model import Generation, ModelOutOfMemoryError
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.wording import benchmark_wording
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints import LoadedSpatialMllm
from spatial_mllm_ros.models.preparation import prepare_video
from spatial_mllm_ros.models.prompts import build_inputs, user_text


class FusedAnswerModel:
    """Answers with a loaded Spatial-MLLM, greedily: the published sampling (T 0.1, top-p 0.001) is greedy in effect."""

    def __init__(self, loaded: LoadedSpatialMllm, *, max_new_tokens: int) -> None:
        self._loaded = loaded
        self._max_new_tokens = max_new_tokens
        self.identity = loaded.identity

    def generate(
        self,
        question: Question,
        frames: Sequence[Frame],
        *,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """See AnswerModel."""
        try:
            return self._generate(question, frames, should_stop, on_text)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise ModelOutOfMemoryError(str(error)) from error

    @torch.inference_mode()
    def _generate(
        self,
        question: Question,
        frames: Sequence[Frame],
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> Generation:
        called_ns = time.monotonic_ns()
        prompt = user_text(
            benchmark_wording(question.text), question.options, self._loaded.fusion, numeric=question.form.is_number
        )
        prepared = prepare_video([frame.rgb for frame in frames], self._loaded.budget)
        if should_stop():
            return Generation("", 0.0, False, prompt, time.monotonic_ns() - called_ns, 0)
        model = self._loaded.model
        visual_embeds = model.visual_embeddings(prepared)
        vision_ns = time.monotonic_ns() - called_ns
        inputs = build_inputs(self._loaded.tokenizer, prepared, prompt).to(model.device)
        watch = _TokenWatch(self._loaded.tokenizer, inputs.prompt_length, should_stop, on_text)
        model.generate(
            **inputs.for_generate(),
            visual_embeds=visual_embeds,
            do_sample=False,
            max_new_tokens=self._max_new_tokens,
            logits_processor=LogitsProcessorList([watch.confidence]),
            stopping_criteria=StoppingCriteriaList([watch]),
        )
        return Generation(
            text=watch.text(),
            confidence=watch.confidence.geometric_mean(),
            finished=not watch.stopped,
            prompt=prompt,
            vision_ns=vision_ns,
            first_token_ns=watch.first_token_ns - called_ns if watch.first_token_ns else 0,
        )


class _GreedyConfidence(LogitsProcessor):
    """Sums the log probability of the token that greedy decoding takes, and leaves the logits as they are."""

    def __init__(self) -> None:
        self._log_probability_sum = 0.0
        self._tokens = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self._log_probability_sum += float(scores[0].float().log_softmax(-1).max())
        self._tokens += 1
        return scores

    def geometric_mean(self) -> float:
        return math.exp(self._log_probability_sum / self._tokens) if self._tokens else 0.0


class _TokenWatch(StoppingCriteria):
    """After every token: notes the first one's time, shows the text so far, and ends the generation when asked to."""

    def __init__(
        self, tokenizer: Any, prompt_length: int, should_stop: Callable[[], bool], on_text: Callable[[str], None] | None
    ) -> None:
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length
        self._should_stop = should_stop
        self._on_text = on_text
        self._generated = torch.empty(0, dtype=torch.long)
        self.confidence = _GreedyConfidence()
        self.first_token_ns = 0
        self.stopped = False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.Tensor:
        self.first_token_ns = self.first_token_ns or time.monotonic_ns()
        self._generated = input_ids[0, self._prompt_length :]
        if self._on_text is not None:
            self._on_text(self.text())
        self.stopped = self._should_stop()
        return torch.full((input_ids.shape[0],), self.stopped, dtype=torch.bool, device=input_ids.device)

    def text(self) -> str:
        """The generated text so far, without special tokens."""
        text: str = self._tokenizer.decode(self._generated, skip_special_tokens=True)
        return text.strip()
