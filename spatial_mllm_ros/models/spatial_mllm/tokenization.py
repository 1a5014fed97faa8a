"""Text to tokens and back, with a strict border between text and control tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from spatial_mllm_ros.errors import CheckpointError, QuestionError

TOKENIZER_NAME = "tokenizer.json"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
PAD = "<|endoftext|>"
CONTROL_TOKENS = (PAD, TURN_START, TURN_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)


class ChatTokenizer:
    """The tokenizer of a checkpoint, which makes control tokens only by their name.

    Ordinary tokenizers read ``<|im_end|>`` inside a question as the end of the turn. Here a text is encoded by a copy
    of the tokenizer without control and added tokens, so that such a string becomes its characters.

    Args:
        full: the tokenizer, with its added tokens.

    Raises:
        CheckpointError: a control token of Qwen2.5-VL is not in it.
    """

    def __init__(self, full: Tokenizer) -> None:
        self._full = full
        missing = [name for name in CONTROL_TOKENS if full.token_to_id(name) is None]
        if missing:
            raise CheckpointError(
                f"The tokenizer has no token {', '.join(missing)}; it is not that of a Qwen2.5-VL model. Fetch "
                f"{TOKENIZER_NAME} of the same checkpoint."
            )
        description = json.loads(full.to_str())
        self._added_ids = frozenset(int(token["id"]) for token in description["added_tokens"])
        self._plain = Tokenizer.from_str(json.dumps({**description, "added_tokens": [], "post_processor": None}))

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTokenizer:
        """The tokenizer of a checkpoint folder.

        Raises:
            CheckpointError: tokenizer.json is missing, damaged, or of another model.
        """
        path = Path(folder) / TOKENIZER_NAME
        if not path.is_file():
            raise CheckpointError(f"{path} is missing. Fetch it from the model's source; vocab.json is not enough.")
        try:
            full = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for a malformed file
            raise CheckpointError(f"{path} is not a readable tokenizer ({error}). Fetch it again.") from error
        return cls(full)

    @property
    def end_id(self) -> int:
        """The token that ends a turn."""
        return self.control_id(TURN_END)

    @property
    def pad_id(self) -> int:
        """The token for padding."""
        return self.control_id(PAD)

    @property
    def size(self) -> int:
        """1 + the largest token id."""
        return 1 + max(self._full.get_vocab(with_added_tokens=True).values())

    def control_id(self, name: str) -> int:
        """Id of one of ``CONTROL_TOKENS``."""
        token: int | None = self._full.token_to_id(name)
        if token is None:
            raise CheckpointError(f"The tokenizer has no token {name!r}.")
        return token

    def encode_text(self, text: str) -> list[int]:
        """Token ids of ``text``; never a control or added token, whatever the text spells.

        Raises:
            QuestionError: the text cannot be encoded (a lone surrogate).
        """
        try:
            ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeError) as error:
            raise QuestionError(f"The text {text!r} is not valid Unicode; send valid UTF-8.") from error
        forbidden = self._added_ids.intersection(ids)
        if forbidden:
            raise QuestionError(
                f"The text {text!r} would become the control tokens {sorted(forbidden)}; write it differently."
            )
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ``ids`` (integers or an integer tensor [n]); bytes that are no UTF-8 become U+FFFD."""
        return str(self._full.decode([int(token) for token in ids], skip_special_tokens=skip_special_tokens))

    def check_ids(self, *, image: int, video: int, vocabulary: int) -> None:
        """Refuses a tokenizer that does not fit a model with these placeholder ids and this vocabulary size.

        Raises:
            CheckpointError: they differ.
        """
        for name, expected in ((IMAGE_PAD, image), (VIDEO_PAD, video)):
            if self.control_id(name) != expected:
                raise CheckpointError(
                    f"{TOKENIZER_NAME} gives {name} the id {self.control_id(name)}, config.json {expected}; the two "
                    "files are of different models. Fetch both from one source."
                )
        if self.size > vocabulary:
            raise CheckpointError(
                f"{TOKENIZER_NAME} has token ids up to {self.size - 1}, the model a vocabulary of {vocabulary}; "
                "the files are of different models. Fetch both from one source."
            )

    def to_json(self) -> str:
        """The content of tokenizer.json."""
        return str(self._full.to_str(pretty=True))
