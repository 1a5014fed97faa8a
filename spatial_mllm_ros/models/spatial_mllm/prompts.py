"""Prompts in the wording and the chat layout of the published checkpoints' training."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from spatial_mllm_ros.errors import QuestionError
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.preparation import PreparedImage, PreparedVideo
from spatial_mllm_ros.models.spatial_mllm.tokenization import (
    IMAGE_PAD,
    TURN_END,
    TURN_START,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    ChatTokenizer,
)

SYSTEM_TEXT = "You are a helpful assistant."


@dataclass(frozen=True, eq=False)
class PromptInputs:
    """The tokens of one prompt about one video or image, for ``SpatialMllm.generate`` and ``forward``.

    Attributes:
        input_ids: int64 [1, L].
        attention_mask: int64 [1, L], all ones.
        grid_name: ``video_grid_thw`` or ``image_grid_thw``.
        grid_thw: int64 [1, 3].
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    grid_name: str
    grid_thw: torch.Tensor

    @property
    def prompt_length(self) -> int:
        """L: what generate returns beyond this index is the answer."""
        return self.input_ids.shape[1]

    def to(self, device: str | torch.device) -> PromptInputs:
        """The same on ``device``."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            grid_thw=self.grid_thw.to(device),
        )

    def for_generate(self) -> dict[str, Any]:
        """Keyword arguments; ``visual_embeds=model.visual_embeddings(prepared)`` is to be added."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            self.grid_name: self.grid_thw,
        }


def user_text(question: str, options: Sequence[str], fusion: Fusion, *, numeric: bool = False) -> str:
    """A question as the training data of ``fusion`` words it; the models answer other wordings worse.

    Args:
        options: choices without their letters (they get A, B, ...), or none.
        numeric: the question asks for a number. Only v1.0 words these differently; ignored where there are options.

    Raises:
        QuestionError: more options than letters.
    """
    if len(options) > len(string.ascii_uppercase):
        raise QuestionError(
            f"The question has {len(options)} options; at most {len(string.ascii_uppercase)} have letters."
        )
    choices = [f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False)]
    if fusion is Fusion.V1_1:
        if choices:
            listed = "\n".join(choices)
            return f"{question}\nOptions:\n{listed}\nAnswer with the option's letter from the given choices directly."
        return f"{question}\nPlease answer the question using a single word or phrase."
    if choices:
        listed = "".join(f"{choice}\n" for choice in choices)
        return (
            f"{question}Options:\n{listed} Please answer with the option's letter from the given choices "
            "(e.g., A, B, etc.) within the <answer> </answer> tags."
        )
    if numeric:
        return (
            f"{question} Please answer with the only numerical value (e.g., 42, 3.14, etc.) within the "
            "<answer> </answer> tags."
        )
    return f"{question} Please answer the question simply within the <answer> </answer> tags"


def context_ids(
    tokenizer: ChatTokenizer, prepared: PreparedVideo | PreparedImage, *, system: str = SYSTEM_TEXT
) -> list[int]:
    """The beginning of a prompt: system text and placeholders of the frames, the same for every question."""
    pad = VIDEO_PAD if isinstance(prepared, PreparedVideo) else IMAGE_PAD
    return prefix_ids(tokenizer, visual_tokens=prepared.token_count, pad=pad, system=system)


def prefix_ids(
    tokenizer: ChatTokenizer, *, visual_tokens: int, pad: str = VIDEO_PAD, system: str = SYSTEM_TEXT
) -> list[int]:
    """``context_ids`` of a video, or with ``pad`` of an image, that takes ``visual_tokens`` placeholders."""
    control, text = tokenizer.control_id, tokenizer.encode_text
    return [
        *(control(TURN_START), *text(f"system\n{system}"), control(TURN_END), *text("\n")),
        *(control(TURN_START), *text("user\n")),
        *(control(VISION_START), *[control(pad)] * visual_tokens, control(VISION_END)),
    ]


def question_ids(tokenizer: ChatTokenizer, question_text: str) -> list[int]:
    """The end of a prompt: the user's text, never a control token whatever it spells, and the start of the answer."""
    control, text = tokenizer.control_id, tokenizer.encode_text
    return [
        *(*text(question_text), control(TURN_END), *text("\n")),
        *(control(TURN_START), *text("assistant\n")),
    ]


def build_inputs(
    tokenizer: ChatTokenizer,
    prepared: PreparedVideo | PreparedImage,
    question_text: str,
    *,
    system: str = SYSTEM_TEXT,
) -> PromptInputs:
    """The whole prompt in Qwen's chat layout: system turn, then frames and question in the user's turn.

    Args:
        prepared: the frames that the placeholders stand for.
        question_text: what ``user_text`` gives, or any other text.

    Raises:
        QuestionError: the text cannot be encoded.
    """
    ids = torch.tensor([context_ids(tokenizer, prepared, system=system) + question_ids(tokenizer, question_text)])
    is_video = isinstance(prepared, PreparedVideo)
    return PromptInputs(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        grid_name="video_grid_thw" if is_video else "image_grid_thw",
        grid_thw=prepared.video_grid_thw if isinstance(prepared, PreparedVideo) else prepared.image_grid_thw,
    )
