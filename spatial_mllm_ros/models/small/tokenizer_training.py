"""Byte-level tokenizers for small models: every text has tokens, frequent words of spatial questions have one each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.prompts import SYSTEM_TEXT, user_text
from spatial_mllm_ros.models.spatial_mllm.tokenization import CONTROL_TOKENS, ChatTokenizer

SMALLEST_VOCABULARY = 256 + len(CONTROL_TOKENS)

# What VSI-Bench asks about (arXiv 2412.14171) and the words its answers and ours are made of.
_OBJECTS = (
    "backpack", "basket", "bathtub", "bed", "blanket", "book", "bookshelf", "bottle", "bowl", "box", "bucket",
    "cabinet", "chair", "clock", "computer", "counter", "cup", "curtain", "desk", "dishwasher", "door", "drawer",
    "fan", "fridge", "heater", "keyboard", "lamp", "laptop", "microwave", "mirror", "monitor", "nightstand", "oven",
    "picture", "pillow", "plant", "printer", "radiator", "refrigerator", "rug", "screen", "shelf", "sink", "sofa",
    "speaker", "stool", "stove", "suitcase", "table", "telephone", "toilet", "towel", "tv", "vase", "wardrobe",
    "washer", "whiteboard", "window", "trash bin",
)  # fmt: skip
_WORDS = (
    "ceiling tv", "trash can", "coffee table", "dining table", "office chair", "power strip", "back-left",
    "back-right", "front-left", "front-right", "left", "right", "back", "front", "turn left", "turn right",
    "turn back", "go forward until", "near", "far", "north", "south", "east", "west", "above", "below", "yes", "no",
    "none", "the room holds", "at", "size", "wide", "long", "high", "deep", "red", "green", "blue", "white", "black",
    "grey", "brown", "yellow", "orange", "wooden", "round", "first", "last", "then", "behind", "between", "on the",
)  # fmt: skip
_QUESTIONS = (
    "How many {a}(s) are in this room?",
    "Measuring from the closest point of each object, what is the distance between the {a} and the {b} (in meters)?",
    "What is the length of the longest dimension (length, width, or height) of the {a}, measured in centimeters?",
    "What is the size of this room (in square meters)? If multiple rooms are shown, estimate the size of the "
    "combined space.",
    "If I am standing by the {a} and facing the {b}, is the lamp to my front-left, front-right, back-left, or "
    "back-right? The directions refer to the quadrants of a Cartesian plane (if I am standing at the origin and "
    "facing along the positive y-axis).",
    "If I am standing by the {a} and facing the {b}, is the sofa to the left, right, or back of the {a}? An object is "
    "to my back if I would have to turn at least 135 degrees in order to face it.",
    "Measuring from the closest point of each object, which of these objects ({a}, {b}, bed, door) is the closest to "
    "the stove?",
    "You are a robot beginning at the {a} facing the {b}. You want to navigate to the window. You will perform the "
    "following actions (Note: for each [please fill in], choose either 'turn back,' 'turn left,' or 'turn right.'): "
    "1. Go forward until the {b} 2. [please fill in] 3. Go forward until the window. You have reached the final "
    "destination.",
    "What will be the first-time appearance order of the following categories in the video: {a}, {b}, table, chair?",
)


def spatial_question_corpus() -> Iterator[str]:
    """Texts with the vocabulary of spatial questions, in the wording of both prompt versions."""
    yield f"system\n{SYSTEM_TEXT}"
    yield from ("user\n", "assistant\n")
    for index, first in enumerate(_OBJECTS):
        second = _OBJECTS[(7 * index + 3) % len(_OBJECTS)]
        for question in _QUESTIONS:
            text = question.format(a=first, b=second)
            for fusion in Fusion:
                yield user_text(text, (), fusion, numeric=True)
                yield user_text(text, (first, second, "left"), fusion)
        yield f"{first}, {second}: {first} at 1.5 m, {second}s."
    for word in _WORDS:
        yield from (word, f"the {word} is")


def text_lines(files: Iterable[Path]) -> Iterator[str]:
    """The lines of text files, with the line breaks of jsonl's texts as what they stand for.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    for path in files:
        try:
            with path.open(encoding="utf-8") as lines:
                yield from (line.replace("\\n", "\n") for line in lines)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"The text file {path} cannot be read: {error}") from error


def byte_tokenizer() -> ChatTokenizer:
    """One token per byte of UTF-8, no training."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    full = Tokenizer(BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    full.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _with_control_tokens(full)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 1024, words: Sequence[str] = ()) -> ChatTokenizer:
    """A byte-level BPE tokenizer with Qwen's control tokens; the same texts give the same tokenizer.

    With ``words`` a token may hold several words, and a phrase that keeps coming back is one token: questions in a
    benchmark's fixed wording are then a fifth as long. ``words`` themselves always stand alone, so that the tokens of a
    thing's name do not depend on the phrase around it.

    Digits are tokens of their own, as in Qwen's: numbers are then read and written digit by digit, whatever numbers
    the texts hold.

    Args:
        texts: typical texts, such as ``spatial_question_corpus()`` and the training data's conversations.
        vocabulary: tokens in all, control tokens included; fewer where the texts do not have so many frequent pieces.
        words: words that vary within fixed phrases; without any, tokens end where words end.

    Raises:
        ConfigurationError: ``vocabulary`` is too small for the 256 bytes and the control tokens.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        raise ConfigurationError(
            f"vocabulary is {vocabulary}; it must be at least {SMALLEST_VOCABULARY}: 256 bytes and the control tokens."
        )
    full = Tokenizer(BPE())
    # Longer words first: otherwise "coffee table" would never be found where "table" is a word too.
    varying = "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)))
    alone = [pre_tokenizers.Split(Regex(rf"\b(?:{varying})\b"), "isolated")] if words else []
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)
    full.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), *alone, bytes_])
    trainer = BpeTrainer(
        vocab_size=vocabulary - len(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=2,
    )
    full.train_from_iterator(texts, trainer)
    return _with_control_tokens(full)


def _with_control_tokens(full: Tokenizer) -> ChatTokenizer:
    full.decoder = decoders.ByteLevel()
    full.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL_TOKENS])
    return ChatTokenizer(full)
