"""Balanced question sets about generated rooms: files of questions, and the scores of the language-only baselines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.recordings.question_files import TimedQuestion, save_questions
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.rooms.world.world import split_seed
from spatial_mllm_ros.rooms.writers import RecordingConfig, scene_path, write_room
from spatial_mllm_ros.scene_questions.balance import balance_table, balanced_questions
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation, read_scene
from spatial_mllm_ros.scene_questions.scene_question import SceneQuestion
from spatial_mllm_ros.scoring.rooms.language_baselines import language_scores
from spatial_mllm_ros.storage import write_text

_BATCH = 16


def room_annotations(split: str, first: int, count: int, config: ClipConfig) -> Iterator[SceneAnnotation]:
    """Annotations of worlds ``first`` .. ``first + count - 1`` of a split, with what the frames of ``config`` show."""
    numbers = range(first, first + count)
    for start in range(0, count, _BATCH):
        seeds = [split_seed(split, number) for number in numbers[start : start + _BATCH]]
        yield from (clip.annotation for clip in make_clips(seeds, config))


def write_questions(path: Path, questions: Iterable[SceneQuestion]) -> int:
    """Writes one JSON object per line (see ``SceneQuestion.record``); returns how many.

    Raises:
        SourceError: the file cannot be written.
    """
    lines = [json.dumps(question.record(number)) for number, question in enumerate(questions)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from error
    return len(lines)


def run_write(out: Path, split: str, first: int, count: int, form: str, config: RecordingConfig) -> int:
    """The command `spatial_mllm rooms write`; returns its exit code."""
    for number in range(first, first + count):
        recording = write_room(out, split_seed(split, number), form, config)
        scene = scene_path(recording)
        questions = balanced_questions([read_scene(scene)], per_type=1, vocabulary=LABELS)
        save_questions(
            scene.with_name(scene.name.replace(".scene.json", ".questions.yaml")),
            [TimedQuestion(q.question, truth=q.truth_text, question_type=q.type.value) for q in questions],
        )
        _say(str(recording))
    return 0


def run_questions(out: Path, split: str, first: int, count: int, per_type: int, frames: int) -> int:
    """The command `spatial_mllm rooms questions`; prints balance and baselines."""
    if count < 1 or per_type < 1:
        raise ConfigurationError(f"--worlds is {count} and --per-type {per_type}; both must be at least 1.")
    questions = balanced_questions(
        room_annotations(split, first, count, ClipConfig(frames=frames)), per_type=per_type, vocabulary=LABELS
    )
    written = write_questions(out, questions)
    _say(f"{written} questions about {count} worlds: {out}\n")
    for kind, bins in balance_table(questions).items():
        _say(f"{kind}: " + ", ".join(f"{name} x {number}" for name, number in bins.items()))
    _say(f"\n{'baselines':<30}{'questions':>10}{'chance':>9}{'constant':>10}{'median':>9}{'class prior':>13}")
    for kind, row in language_scores(questions).items():
        chance = f"{row['chance']:.1f}" if "chance" in row else "-"
        _say(
            f"{kind:<30}{row['questions']:>10.0f}{chance:>9}{row['constant']:>10.1f}{row['median']:>9.1f}"
            f"{row['class prior']:>13.1f}"
        )
    return 0


def run_page(out: Path, split: str, first: int, count: int) -> int:
    """The command `spatial_mllm rooms page`; returns its exit code."""
    from spatial_mllm_ros.rooms.page import write_rooms_page

    write_rooms_page(out, [split_seed(split, number) for number in range(first, first + count)])
    _say(str(out))
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
