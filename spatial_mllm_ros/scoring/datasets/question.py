"""Questions of a benchmark, and the problems that were met while reading them."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BenchmarkQuestion:
    """One question of a benchmark.

    Attributes:
        id: unique within the benchmark.
        benchmark: as in the scorers: "vsi-bench", "revsi", "vsi-super", "scanqa" or "sqa3d".
        question_type: as published; "" where the benchmark has none.
        text: the question as published; in SQA3D with the situation before it.
        options: the choices without their letters; none for open questions.
        truths: the accepted answers.
        scene: the scene that the question is about; questions of one scene are resampled together.
        video: an existing video file, or a folder of frames.
    """

    id: str
    benchmark: str
    question_type: str
    text: str
    options: tuple[str, ...]
    truths: tuple[str, ...]
    scene: str
    video: Path

    def in_words(self, said: str) -> str:
        """A truth or an answer for people: the letter of an option is followed by the option, "B" is "B. table"."""
        letter = said.strip().rstrip(".").upper()
        options = dict(zip(string.ascii_uppercase, self.options, strict=False))
        return f"{letter}. {options[letter]}" if letter in options else said


@dataclass(frozen=True)
class Problem:
    """A row of a data set that cannot be used.

    Attributes:
        place: file and line, or file and entry.
        cause: "broken_line", "missing_field", "missing_video" or "duplicate_id".
    """

    place: str
    cause: str
    message: str


@dataclass(frozen=True)
class BenchmarkData:
    """The questions of a folder with a benchmark.

    Attributes:
        split: e.g. "full" or "debiased".
        problems: the rows that were left out, in the order of the files.
    """

    benchmark: str
    split: str
    questions: tuple[BenchmarkQuestion, ...]
    problems: tuple[Problem, ...]


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """("A. chair", "B. table") as ("chair", "table"); options that are not all lettered in order stay as they are."""
    lettered = [f"{letter}. " for letter in string.ascii_uppercase[: len(options)]]
    if len(lettered) == len(options) and all(o.startswith(p) for o, p in zip(options, lettered, strict=True)):
        return tuple(option[3:] for option in options)
    return tuple(options)
