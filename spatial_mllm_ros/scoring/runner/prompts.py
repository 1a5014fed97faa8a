"""The prompt of a benchmark's question: as the checkpoint was trained, or as the benchmark's harness words it."""

from __future__ import annotations

import string
from enum import Enum

from spatial_mllm_ros.answering.wording import checkpoint_prompt
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.scoring.datasets.question import BenchmarkQuestion
from spatial_mllm_ros.scoring.scorers import revsi, vsi_bench


class PromptStyle(str, Enum):
    """Whose wording."""

    CHECKPOINT = "checkpoint"  #: that of the checkpoint's training, as the node gives it to the model
    BENCHMARK = "benchmark"  #: that of lmms-eval for the benchmark, the same for every model


_FRAMES = "These are frames of a video."
_PHRASE = "Please answer the question using a single word or phrase."
_NUMBER = "Answer the question using a single integer or decimal number."
_LETTER = "Answer with the option's letter from the given choices directly."


def prompt_of(question: BenchmarkQuestion, style: PromptStyle, fusion: Fusion) -> str:
    """The user's text for ``question``."""
    if style is PromptStyle.CHECKPOINT:
        numeric = question.question_type in (*vsi_bench.NUMERIC_TYPES, *revsi.NUMERIC_TYPES)
        return checkpoint_prompt(question.text, question.options, fusion, numeric=numeric)
    # lmms-eval puts no sentence about frames before the questions of VSI-SUPER's recall.
    before = () if question.benchmark == "vsi-super" and question.options else (_FRAMES,)
    if question.options:
        letters = zip(string.ascii_uppercase, question.options, strict=False)
        return "\n".join(
            [*before, question.text, "Options:", *(f"{letter}. {option}" for letter, option in letters), _LETTER]
        )
    return "\n".join([*before, question.text, _NUMBER if question.benchmark == "revsi" else _PHRASE])
