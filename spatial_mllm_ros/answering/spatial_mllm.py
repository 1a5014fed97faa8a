"""Spatial-MLLM as an answer model: frames to a context, prompts about it to text (arXiv 2505.23747)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch

from spatial_mllm_ros.answering.context import VisualContext
from spatial_mllm_ros.answering.model import Generation, ModelOutOfMemoryError
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.wording import checkpoint_prompt
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.prefill.prefill import Prefill
from spatial_mllm_ros.models.prefill.prefix_build import PrefixBuild, VisualTokens
from spatial_mllm_ros.models.prefill.prompt_cache import PromptPrefix
from spatial_mllm_ros.models.prefill.token_cache import TokenCache
from spatial_mllm_ros.models.spatial_mllm.prompts import question_ids


class SpatialMllmAnswerModel:
    """Answers with a loaded Spatial-MLLM, greedily: the published sampling (T 0.1, top-p 0.001) is greedy in effect.

    Frames have the size of the checkpoint's own pixel budget.

    Args:
        loaded: the checkpoint.
        max_new_tokens: token limit of an answer.
        cache_bytes: bound of the tokens kept per frame and frame pair; 0 keeps none.
        batch_size: most prompts that ``generate_all`` answers together; halved for good when memory runs out.
    """

    def __init__(
        self, loaded: LoadedSpatialMllm, *, max_new_tokens: int, cache_bytes: int = 256 << 20, batch_size: int = 8
    ) -> None:
        self.loaded = loaded
        self.identity = loaded.identity
        self.tokens = TokenCache(cache_bytes)
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._ends = frozenset(_listed(loaded.model.generation_config.eos_token_id))
        self._begun: tuple[Hashable, PrefixBuild] | None = None
        self._epoch = 0

    def prepare(
        self,
        frames: Sequence[Frame],
        *,
        epoch: int,
        interrupt: Callable[[], bool],
        pause_requested: Callable[[], bool] = lambda: False,
    ) -> VisualContext | None:
        """See AnswerModel."""
        stamps_ns = tuple(frame.stamp_ns for frame in frames)
        if epoch != self._epoch:
            self.forget()
            self._epoch = epoch
        if self._begun is None or self._begun[0] != stamps_ns:
            self._begun = (stamps_ns, self.build(frames, epoch=epoch))
        try:
            prefix = self._begun[1].run([frame.rgb for frame in frames], interrupt, pause_requested)
        except torch.OutOfMemoryError as error:
            self.forget()
            torch.cuda.empty_cache()
            raise ModelOutOfMemoryError(str(error)) from error
        if prefix is None:
            return None
        self._begun = None
        return self._context(prefix, epoch, stamps_ns)

    def build(self, frames: Sequence[Frame], *, epoch: int) -> PrefixBuild:
        """The work of ``prepare``, not begun yet: for whoever wants to run its stages one by one."""
        return self._build([(epoch, frame.stamp_ns) for frame in frames])

    def visual_tokens(self, images: Sequence[np.ndarray], keys: Sequence[Hashable]) -> VisualTokens:
        """The first half of ``prepare``: what the language model would be shown.

        Args:
            images: uint8 [H, W, 3] R G B each, of one size, in time order.
            keys: a name of each image; equal names mean equal pixels.

        Raises:
            SpatialMllmError: the images cannot be read.
        """
        return self._build(keys).visual_tokens(images)

    @torch.inference_mode()
    def context_of(self, visual: torch.Tensor, grid_thw: tuple[int, int, int]) -> VisualContext:
        """The second half of ``prepare``: a context of given visual tokens, of no frames and no epoch.

        Args:
            visual: [n, D], one row per placeholder of a video of this grid.
            grid_thw: frame pairs, rows and columns of patches.

        Raises:
            ConfigurationError: another number of rows than the grid has placeholders.
        """
        return self._context(Prefill(self.loaded.model, self.loaded.tokenizer, visual, grid_thw).run(), 0, ())

    def forget(self) -> None:
        """Releases what is kept between contexts."""
        self._begun = None
        self.tokens.clear()

    def prompt_of(self, question: Question) -> str:
        """The user's text that the model is given for a question."""
        return checkpoint_prompt(question.text, question.options, self.loaded.fusion, numeric=question.form.is_number)

    def generate(
        self,
        question: Question,
        context: VisualContext,
        *,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """See AnswerModel."""
        try:
            return self._generate([self.prompt_of(question)], context.prefix, should_stop, on_text)[0]
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise ModelOutOfMemoryError(str(error)) from error

    def generate_all(self, prompts: Sequence[str], context: VisualContext) -> list[Generation]:
        """See AnswerModel. Each text is the one that its prompt alone would give, up to rounding in the last bit."""
        answered: list[Generation] = []
        while len(answered) < len(prompts):
            batch = prompts[len(answered) : len(answered) + self._batch_size]
            try:
                answered += self._generate(batch, context.prefix, lambda: False, None)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                if len(batch) == 1:
                    raise ModelOutOfMemoryError(str(error)) from error
                self._batch_size = len(batch) // 2
        return answered

    @torch.inference_mode()
    def _generate(
        self,
        prompts: Sequence[str],
        prefix: PromptPrefix,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> list[Generation]:
        """Greedy answers to all ``prompts`` together; ``on_text`` is given the first one's text."""
        called_ns = time.monotonic_ns()
        first_token_ns = 0
        model, device = self.loaded.model, self.loaded.model.device
        # Not the library's generate(): its set-up adds to every first token, and on a kept cache it wants masks, ids
        # and positions of the whole prompt.
        endings = [question_ids(self.loaded.tokenizer, prompt) for prompt in prompts]
        longest = max(map(len, endings))
        padding = [longest - len(ending) for ending in endings]  # between prefix and prompt
        pad_id = self.loaded.tokenizer.pad_id
        unread = torch.tensor(
            [[pad_id] * pads + ending for pads, ending in zip(padding, endings, strict=True)], device=device
        )
        positions = (
            prefix.next_position + torch.arange(longest, device=device) - torch.tensor(padding, device=device)[:, None]
        )
        mask = self._mask(len(prefix.token_ids), padding, longest) if any(padding) else None
        texts: list[list[int]] = [[] for _ in prompts]
        log_probabilities = [0.0] * len(prompts)
        stopped = should_stop()
        generated, open_rows = 0, set(range(len(prompts)))
        with prefix.cache.questions(len(prompts), room=longest + self._max_new_tokens) as cache:
            while not stopped and open_rows and generated < self._max_new_tokens:
                seen = len(prefix.token_ids) + longest + generated
                logits = model.next_logits(unread, positions, cache, None if mask is None else mask[:, :seen])
                tokens, of_tokens = _greedy(logits)
                first_token_ns = first_token_ns or time.monotonic_ns() - called_ns
                generated += 1
                for row in sorted(open_rows):
                    texts[row].append(tokens[row])
                    log_probabilities[row] += of_tokens[row]
                if on_text is not None:
                    on_text(self._text(texts[0]))
                open_rows -= {row for row in open_rows if tokens[row] in self._ends}
                if open_rows:
                    stopped = should_stop()
                    unread, positions = torch.tensor(tokens, device=device)[:, None], positions[:, -1:] + 1
        return [
            Generation(
                text=self._text(text),
                confidence=math.exp(log_probability / len(text)) if text else 0.0,
                finished=not stopped,
                prompt=prompt,
                first_token_ns=first_token_ns,
                token_ids=tuple(text),
                truncated=not stopped and row in open_rows,
            )
            for row, (prompt, text, log_probability) in enumerate(zip(prompts, texts, log_probabilities, strict=True))
        ]

    def _mask(self, prefix_tokens: int, padding: Sequence[int], longest: int) -> torch.Tensor:
        """int64 [rows, all tokens that there may be], 0 at padding."""
        mask = torch.ones(len(padding), prefix_tokens + longest + self._max_new_tokens, dtype=torch.long)
        for row, pads in enumerate(padding):
            mask[row, prefix_tokens : prefix_tokens + pads] = 0
        return mask.to(self.loaded.model.device)

    def _build(self, keys: Sequence[Hashable]) -> PrefixBuild:
        return PrefixBuild(self.loaded.model, self.loaded.tokenizer, self.loaded.budget, keys, self.tokens)

    def _context(self, prefix: PromptPrefix, epoch: int, stamps_ns: tuple[int, ...]) -> VisualContext:
        return VisualContext(
            epoch=epoch,
            stamps_ns=stamps_ns,
            model_sha256=self.identity.sha256,
            built_ns=time.monotonic_ns(),
            prefix=prefix,
            nbytes=prefix.cache.nbytes,
        )

    def _text(self, generated: Sequence[int]) -> str:
        return self.loaded.tokenizer.decode(generated, skip_special_tokens=True).strip()


def _greedy(logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """The most probable token of each row of logits [rows, vocabulary], and its log probability; one transfer."""
    tokens = logits.argmax(-1, keepdim=True)
    log_probabilities = logits.float().log_softmax(-1).gather(-1, tokens)
    both = torch.cat([tokens.double(), log_probabilities.double()], dim=-1).tolist()
    return [int(token) for token, _ in both], [log_probability for _, log_probability in both]


def _listed(ids: int | Sequence[int] | None) -> Sequence[int]:
    return [ids] if isinstance(ids, int) else ids or []
