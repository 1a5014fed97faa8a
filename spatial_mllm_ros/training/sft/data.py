"""Conversations about videos and images, from jsonl files in the layout of the published training data."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_ros.errors import SampleRejectedError, TrainingError
from spatial_mllm_ros.training.run_folder import BadSamples

_TAGS = ("<video>", "<image>")
_ASKS, _ANSWERS = ("human", "user"), ("gpt", "assistant")


@dataclass(frozen=True)
class Conversation:
    """One line of a jsonl file.

    Attributes:
        file, line: the file, and the number of the line, from 1.
        media: the video (file, folder of images, RGB-D folder, bag) or the image.
        is_image: whether ``media`` is one still image.
        turns: (question, answer) pairs, at least one; the placeholder tags are removed.
    """

    file: Path
    line: int
    media: Path
    is_image: bool
    turns: tuple[tuple[str, str], ...]


class ConversationFiles:
    """The lines of files by number. Only their positions are in memory; a line is read again when it is needed.

    All lines are checked at the start: broken lines and those whose media do not exist are reported and left out.

    Args:
        files: jsonl files.
        media_root: folder that relative media paths start at; None: the folder of each file.
        bad: where lines that cannot be used are reported.

    Attributes:
        sha256: file name -> hash of its bytes.

    Raises:
        TrainingError: a file cannot be read, or no line can be used.
    """

    def __init__(self, files: Sequence[Path], media_root: Path | None, bad: BadSamples) -> None:
        self._root = media_root
        self._positions: list[tuple[Path, int, int]] = []  # file, line, byte offset
        self._media: list[str] = []
        self.sha256: dict[str, str] = {}
        present: dict[Path, bool] = {}
        for file in files:
            self._scan(Path(file), bad, present)
        if not self._positions:
            raise TrainingError(
                f"No line of {', '.join(map(str, files))} can be used: {dict(bad.counts) or 'they are empty'}. The "
                "warnings above say why of the first lines of each kind."
            )

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Conversation:
        file, line, offset = self._positions[index]
        with file.open("rb") as stream:
            stream.seek(offset)
            return parse_conversation(stream.readline(), file, line, self._root)

    def where(self, index: int) -> tuple[Path, int]:
        """File and line of a sample."""
        file, line, _ = self._positions[index]
        return file, line

    def groups(self, size: int) -> list[tuple[int, ...]]:
        """Indices in groups of up to ``size`` that are about the same media, in the order of the files."""
        by_media: dict[str, list[int]] = defaultdict(list)
        for index, media in enumerate(self._media):
            by_media[media].append(index)
        chunks = [of[start : start + size] for of in by_media.values() for start in range(0, len(of), size)]
        return [tuple(chunk) for chunk in sorted(chunks)]

    def _scan(self, file: Path, bad: BadSamples, present: dict[Path, bool]) -> None:
        digest, offset = hashlib.sha256(), 0
        try:
            with file.open("rb") as stream:
                for line, content in enumerate(stream, 1):
                    digest.update(content)
                    if content.strip():
                        self._check(content, file, line, offset, bad, present)
                    offset += len(content)
        except OSError as error:
            raise TrainingError(f"The data file {file} cannot be read: {error.strerror}.") from error
        self.sha256[str(file)] = digest.hexdigest()

    def _check(
        self, content: bytes, file: Path, line: int, offset: int, bad: BadSamples, present: dict[Path, bool]
    ) -> None:
        try:
            conversation = parse_conversation(content, file, line, self._root)
            media = conversation.media
            if media not in present:
                present[media] = media.exists()
            if not present[media]:
                raise SampleRejectedError(
                    "media_missing", f"{media} does not exist; fetch it, or set data.media_root to where it is."
                )
        except SampleRejectedError as error:
            bad.report(file, line, error)
            return
        self._positions.append((file, line, offset))
        self._media.append(f"{media}\n{conversation.is_image}")


def parse_conversation(content: bytes, file: Path, line: int, media_root: Path | None) -> Conversation:
    """Parses and checks one line.

    Raises:
        SampleRejectedError: cause ``json`` or ``fields``.
    """
    try:
        row = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SampleRejectedError("json", f"The line is not valid JSON ({error}).") from error
    if not isinstance(row, dict):
        raise SampleRejectedError("fields", f"The line holds a {type(row).__name__}, expected an object.")
    given = [name for name in ("video", "image") if name in row]
    if len(given) != 1 or not isinstance(row[given[0]], str) or not row[given[0]]:
        raise SampleRejectedError("fields", "The line needs one of 'video' and 'image', with one path as text.")
    path = Path(row[given[0]])
    media = path if path.is_absolute() else (media_root or file.parent) / path
    return Conversation(file, line, media, given[0] == "image", _turns(row.get("conversations")))


def _turns(entries: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(entries, list) or len(entries) < 2 or len(entries) % 2:
        raise SampleRejectedError("fields", "'conversations' must be a list of questions and answers in turn.")
    texts = []
    for number, entry in enumerate(entries):
        who = _ANSWERS if number % 2 else _ASKS
        valid = isinstance(entry, Mapping) and entry.get("from") in who and isinstance(entry.get("value"), str)
        if not valid:
            raise SampleRejectedError(
                "fields", f"Entry {number + 1} of 'conversations' needs 'from': '{who[0]}' and 'value': a text."
            )
        text = entry["value"]
        if number % 2 == 0:
            for tag in _TAGS:
                text = text.replace(f"{tag}\n", "").replace(tag, "")
        if not text.strip():
            raise SampleRejectedError("fields", f"Entry {number + 1} of 'conversations' is empty.")
        texts.append(text)
    return tuple(zip(texts[::2], texts[1::2], strict=True))


@lru_cache(maxsize=2)
def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of ``count`` samples in an epoch (from 0): a permutation, int64 [count]."""
    return np.random.default_rng((seed, epoch)).permutation(count)
