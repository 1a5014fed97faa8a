"""Spatial-MLLM as an answer model: frames to a context, questions about it to text (arXiv 2505.23747)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence

import torch

from spatial_mllm_ros.answering.context import WarmContext
from spatial_mllm_ros.answering.model import Generation, ModelOutOfMemoryError
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.wording import benchmark_wording
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.prefill.prefix_build import PrefixBuild
from spatial_mllm_ros.models.prefill.prompt_cache import PromptPrefix
from spatial_mllm_ros.models.prefill.token_cache import TokenCache
from spatial_mllm_ros.models.spatial_mllm.prompts import question_ids, user_text


class FusedAnswerModel:
    """Answers with a loaded Spatial-MLLM, greedily: the published sampling (T 0.1, top-p 0.001) is greedy in effect.

    Args:
        loaded: the checkpoint.
        max_new_tokens: longest answer.
        cache_bytes: bound of the tokens kept per frame and frame pair; 0 keeps none.
    """

    def __init__(self, loaded: LoadedSpatialMllm, *, max_new_tokens: int, cache_bytes: int = 256 << 20) -> None:
        self._loaded = loaded
        self._max_new_tokens = max_new_tokens
        self._ends = frozenset(_listed(loaded.model.generation_config.eos_token_id))
        self._begun: tuple[Hashable, PrefixBuild] | None = None
        self._epoch = 0
        self.tokens = TokenCache(cache_bytes)
        self.identity = loaded.identity

    def prepare(
        self,
        frames: Sequence[Frame],
        *,
        epoch: int,
        should_yield: Callable[[], bool],
        may_pause: Callable[[], bool] = lambda: False,
    ) -> WarmContext | None:
        """See AnswerModel."""
        stamps_ns = tuple(frame.stamp_ns for frame in frames)
        if epoch != self._epoch:
            self.forget()
            self._epoch = epoch
        if self._begun is None or self._begun[0] != stamps_ns:
            self._begun = (stamps_ns, self.build(frames, epoch=epoch))
        try:
            prefix = self._begun[1].run([frame.rgb for frame in frames], should_yield, may_pause)
        except torch.OutOfMemoryError as error:
            self.forget()
            torch.cuda.empty_cache()
            raise ModelOutOfMemoryError(str(error)) from error
        if prefix is None:
            return None
        self._begun = None
        return WarmContext(
            epoch=epoch,
            stamps_ns=stamps_ns,
            model_sha256=self.identity.sha256,
            built_ns=time.monotonic_ns(),
            prefix=prefix,
            nbytes=prefix.cache.nbytes,
        )

    def build(self, frames: Sequence[Frame], *, epoch: int) -> PrefixBuild:
        """What ``prepare`` runs, not begun yet: for whoever wants to look at its stages one by one."""
        keys = [(epoch, frame.stamp_ns) for frame in frames]
        return PrefixBuild(self._loaded.model, self._loaded.tokenizer, self._loaded.budget, keys, self.tokens)

    def forget(self) -> None:
        """Lets go what is kept between contexts."""
        self._begun = None
        self.tokens.clear()

    def generate(
        self,
        question: Question,
        context: WarmContext,
        *,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """See AnswerModel."""
        prompt = user_text(
            benchmark_wording(question.text), question.options, self._loaded.fusion, numeric=question.form.is_number
        )
        try:
            return self._generate(prompt, context.prefix, should_stop, on_text)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise ModelOutOfMemoryError(str(error)) from error

    @torch.inference_mode()
    def _generate(
        self,
        prompt: str,
        prefix: PromptPrefix,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> Generation:
        called_ns = time.monotonic_ns()
        first_token_ns, log_probability = 0, 0.0
        generated: list[int] = []
        # Not the library's generate(): its set-up adds to every first token, and on a kept cache it wants masks, ids
        # and positions of the whole prompt.
        unread, position = question_ids(self._loaded.tokenizer, prompt), prefix.next_position
        stopped = should_stop()
        with prefix.cache.question() as cache:
            while not stopped and len(generated) < self._max_new_tokens:
                logits = self._loaded.model.next_logits(unread, position, cache)
                position += len(unread)
                token, its_log_probability = _greedy(logits)
                first_token_ns = first_token_ns or time.monotonic_ns() - called_ns
                generated.append(token)
                log_probability += its_log_probability
                if on_text is not None:
                    on_text(self._text(generated))
                if token in self._ends:
                    break
                stopped = should_stop()
                unread = [token]
        return Generation(
            text=self._text(generated),
            confidence=math.exp(log_probability / len(generated)) if generated else 0.0,
            finished=not stopped,
            prompt=prompt,
            first_token_ns=first_token_ns,
            token_ids=tuple(generated),
            cut=not stopped and not self._ends.intersection(generated[-1:]),
        )

    def _text(self, generated: Sequence[int]) -> str:
        return self._loaded.tokenizer.decode(generated, skip_special_tokens=True).strip()


def _greedy(logits: torch.Tensor) -> tuple[int, float]:
    """The most probable token and its log probability, fetched from the device in one go."""
    token = logits.argmax()
    log_probabilities = logits.float().log_softmax(-1)
    both = torch.stack([token.double(), log_probabilities[token].double()]).tolist()
    return int(both[0]), both[1]


def _listed(ids: int | Sequence[int] | None) -> Sequence[int]:
    return [ids] if isinstance(ids, int) else ids or []
