"""`spatial_mllm evaluate`: answers and scores a benchmark; a run may be stopped and continued at any moment."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from spatial_mllm_ros.answering.model import AnswerModel, ModelOutOfMemoryError, read_frames
from spatial_mllm_ros.errors import ConfigurationError, SpatialMllmError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.provenance import versions
from spatial_mllm_ros.report.thumbnails import strip_jpeg
from spatial_mllm_ros.scoring.benchmark_page import STRIPS_FOLDER, strip_key, write_benchmark_page
from spatial_mllm_ros.scoring.datasets.question import BenchmarkData, BenchmarkQuestion
from spatial_mllm_ros.scoring.datasets.read import read_benchmark
from spatial_mllm_ros.scoring.runner.clips import ChosenFrames, FrameChoice, by_coverage, choose_frames
from spatial_mllm_ros.scoring.runner.prompts import PromptStyle, prompt_of
from spatial_mllm_ros.scoring.runner.results_file import ResultsFile, StoredAnswer, read_answers
from spatial_mllm_ros.scoring.runner.sharding import Shard
from spatial_mllm_ros.scoring.score_table import ScoreTable, score_answers, scored_question
from spatial_mllm_ros.scoring.scorers.base import Scorer
from spatial_mllm_ros.scoring.scorers.catalogue import scorer_named, scorers_of
from spatial_mllm_ros.storage import write_bytes, write_json

if TYPE_CHECKING:
    from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
    from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion

_log = logging.getLogger(__name__)

RESULTS_FILE = "results.json"
REPORT_FILE = "report.json"
PAGE_FILE = "report.html"


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run. The report states them, and answers of other settings are never mixed in.

    Attributes:
        frames: most frames that the model sees of a clip.
        choice: how they are chosen.
        candidates: number of frames that space-aware choice chooses from.
        prompt: whose wording.
        max_new_tokens: token limit of an answer; VSI-Bench is published with 16.
    """

    frames: int = 16
    choice: FrameChoice = FrameChoice.UNIFORM
    candidates: int = 128
    prompt: PromptStyle = PromptStyle.CHECKPOINT
    max_new_tokens: int = 16

    def __post_init__(self) -> None:
        for name in ("frames", "candidates", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"RunConfig.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.choice is FrameChoice.SPACE_AWARE and self.candidates < self.frames:
            raise ConfigurationError(
                f"{self.candidates} candidates are too few to choose {self.frames} frames from; give at least as many."
            )

    @property
    def frames_in_words(self) -> str:
        """E.g. "16 space-aware frames of 128"."""
        of = f" of {self.candidates}" if self.choice is FrameChoice.SPACE_AWARE else ""
        return f"{self.frames} {self.choice.value} frames{of}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(replace(self)) | {"choice": self.choice.value, "prompt": self.prompt.value}


def evaluate(
    data: BenchmarkData,
    model: AnswerModel,
    fusion: Fusion,
    out_dir: Path,
    config: RunConfig,
    *,
    scorer: Scorer,
    shard: Shard | None = None,
    frames_of: Callable[[Path], ChosenFrames] | None = None,
) -> Counter[str]:
    """Answers the questions of this shard that have no answer yet; returns how many failed, by kind of error.

    The model reads a clip's frames once, as the node reads its evidence set, and answers all questions about the clip
    together. Every answer is on disk before the next clip is begun. The questions of a clip that cannot be read are
    logged, counted, and tried again when the run is started again.

    Args:
        fusion: of the checkpoint, for its prompts.
        scorer: for the running score of the progress bar.
        frames_of: clip -> frames; uniform ones as ``config`` says if not given.

    Raises:
        ConfigurationError, SourceError: see ``ResultsFile``.
    """
    shard = shard or Shard()
    choose = frames_of or (lambda clip: choose_frames(clip, config.frames))
    failed: Counter[str] = Counter()
    settings = run_settings(data, model, config)
    with ResultsFile(out_dir, rank=shard.rank, settings=settings) as results:
        done = read_answers(out_dir)
        mine = shard.part_of(data.questions)
        scores = _RunningScore(scorer)
        total = sum(map(len, mine))
        with tqdm(total=total, unit="question", desc=data.benchmark, disable=not sys.stderr.isatty()) as bar:
            for number, clip in enumerate(mine, 1):
                open_questions = [question for question in clip if question.id not in done]
                for question in clip:
                    if question.id in done:
                        scores.add(question, done[question.id].prediction)
                bar.update(len(clip) - len(open_questions))
                if not open_questions:
                    continue
                try:
                    frames = choose(clip[0].video)
                    _answer_clip(number, open_questions, frames, model, fusion, config, results, scores)
                    _keep_strip(out_dir, clip[0].video, frames)
                except (SpatialMllmError, ModelOutOfMemoryError) as error:
                    failed[error.code] += len(open_questions)
                    ids = ", ".join(question.id for question in open_questions)
                    _log.warning("%s: not answered (%s): %s Questions: %s", clip[0].video, error.code, error, ids)
                bar.update(len(open_questions))
                bar.set_postfix_str(str(scores))
    return failed


def _answer_clip(
    number: int,
    questions: Sequence[BenchmarkQuestion],
    frames: ChosenFrames,
    model: AnswerModel,
    fusion: Fusion,
    config: RunConfig,
    results: ResultsFile,
    scores: _RunningScore,
) -> None:
    started_s = time.monotonic()
    prompts = [prompt_of(question, config.prompt, fusion) for question in questions]
    seen = [Frame(stamp_ns=1 + index, rgb=image) for index, image in zip(frames.indices, frames.images, strict=True)]
    predictions = [
        generation.text for generation in model.generate_all(prompts, read_frames(model, seen, epoch=number))
    ]
    seconds = round((time.monotonic() - started_s) / len(questions), 4)
    for question, prompt, prediction in zip(questions, prompts, predictions, strict=True):
        results.append(StoredAnswer(question.id, prediction, prompt, frames.indices, seconds))
        scores.add(question, prediction)


def _keep_strip(out_dir: Path, clip: Path, frames: ChosenFrames) -> None:
    """A small picture of the frames for the page, which then need not read the videos again."""
    folder = out_dir / STRIPS_FOLDER
    folder.mkdir(exist_ok=True)
    write_bytes(folder / f"{strip_key(clip)}.jpg", strip_jpeg(frames.images))


def run_settings(data: BenchmarkData, model: AnswerModel, config: RunConfig) -> dict[str, Any]:
    """What the answers depend on."""
    return {
        "benchmark": data.benchmark,
        "split": data.split,
        "model": model.identity.name,
        "sha256": model.identity.sha256,
        **config.to_json(),
    }


class _RunningScore:
    """Mean score so far, overall, for the progress bar; the table at the end has the averages that count."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._sum = 0.0
        self._count = 0

    def add(self, question: BenchmarkQuestion, prediction: str) -> None:
        """One more answer."""
        score = scored_question(self._scorer, question, prediction).score
        if score is not None:
            self._sum += score
            self._count += 1

    def __str__(self) -> str:
        mean = f"{100 * self._sum / self._count:.1f}" if self._count else "-"
        return f"{self._scorer.name} micro {mean} (n = {self._count})"


def finish(
    data: BenchmarkData,
    out_dir: Path,
    scorers: Sequence[Scorer],
    *,
    model: Mapping[str, Any],
    config: RunConfig,
) -> list[ScoreTable]:
    """Merges the answers of all processes and writes results.json, report.json and report.html.

    ``results.json`` holds every question in the order of the benchmark and no timing: it is the same file however often
    the run was stopped and however many processes shared it.

    Raises:
        OSError: the folder cannot be written.
    """
    answers = read_answers(out_dir)
    predictions = {number: answer.prediction for number, answer in answers.items()}
    tables = [
        score_answers(
            scorer, data.questions, predictions, split=data.split, model=model["name"], frames=config.frames_in_words
        )
        for scorer in scorers
    ]
    rows = [_row(question, answers.get(question.id), scorers) for question in data.questions]
    header = {"benchmark": data.benchmark, "split": data.split, "model": dict(model), "configuration": config.to_json()}
    write_json(out_dir / RESULTS_FILE, {**header, "questions": rows})
    report = {
        **header,
        "scores": [table.to_json() for table in tables],
        "problems": [asdict(problem) for problem in data.problems],
        "versions": versions(),
        "timings": {"seconds": {number: answer.seconds for number, answer in sorted(answers.items())}},
    }
    write_json(out_dir / REPORT_FILE, report)
    write_benchmark_page(
        out_dir / PAGE_FILE, data, answers, tables, scorers[0], model=model, configuration=config.to_json()
    )
    return tables


def _row(question: BenchmarkQuestion, answer: StoredAnswer | None, scorers: Sequence[Scorer]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": question.id,
        "question_type": question.question_type,
        "scene": question.scene,
        "question": question.text,
        "options": list(question.options),
        "truths": list(question.truths),
    }
    if answer is None:
        return row
    scores = {scorer.name: scored_question(scorer, question, answer.prediction).score for scorer in scorers}
    return row | {
        "prediction": answer.prediction,
        "prompt": answer.prompt,
        "frames": list(answer.frames),
        "scores": scores,
    }


def run(
    layout: str,
    folder: Path,
    out_dir: Path,
    config: RunConfig,
    *,
    videos: Path | None = None,
    split: str = "",
    scorer_names: Sequence[str] = (),
    checkpoint: str = "",
    device: str = "auto",
    batch_size: int = 8,
    limit: int = 0,
) -> int:
    """The command `spatial_mllm evaluate`; returns its exit code: 1 when questions are left unanswered.

    Args:
        scorer_names: "all" for all of the benchmark; its default if none is given.
        limit: only the first so many questions; 0 for all.

    Raises:
        SpatialMllmError: data, checkpoint or an option cannot be used.
    """
    from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel

    data = read_benchmark(layout, folder, split=split, videos=videos)
    if limit:
        data = replace(data, questions=data.questions[:limit])
    scorers = _scorers(data.benchmark, scorer_names)
    shard = Shard.from_environment()
    loaded, used_device = _load(checkpoint, device, shard)
    model = SpatialMllmAnswerModel(loaded, max_new_tokens=config.max_new_tokens, cache_bytes=0, batch_size=batch_size)
    frames_of = _frame_choice(loaded, used_device, config)
    failed = evaluate(data, model, loaded.fusion, out_dir, config, scorer=scorers[0], shard=shard, frames_of=frames_of)
    answered = len(read_answers(out_dir).keys() & {question.id for question in data.questions})
    if answered < len(data.questions) and shard.world > 1:
        _log.info("%d of %d questions are answered; the last process merges them.", answered, len(data.questions))
        if not failed:
            return 0
    tables = finish(data, out_dir, scorers, model=asdict(model.identity), config=config)
    for line in (line for table in tables for line in table.lines()):
        sys.stdout.write(f"{line}\n")
    if model.identity.random_weights:
        sys.stdout.write("The model has random weights: these scores say nothing about Spatial-MLLM.\n")
    for what, counts in (("left out when reading", Counter(p.cause for p in data.problems)), ("failed", failed)):
        if counts:
            listed = ", ".join(f"{count} x {cause}" for cause, count in sorted(counts.items()))
            sys.stdout.write(f"Questions {what}: {listed}; the log names each.\n")
    sys.stdout.write(f"Written: {out_dir / PAGE_FILE}, {REPORT_FILE}, {RESULTS_FILE}\n")
    return 1 if answered < len(data.questions) else 0


def _scorers(benchmark: str, names: Sequence[str]) -> tuple[Scorer, ...]:
    if "all" in names:
        return scorers_of(benchmark)
    return tuple(scorer_named(benchmark, name) for name in (names or ("",)))


def _load(checkpoint: str, device: str, shard: Shard) -> tuple[LoadedSpatialMllm, str]:
    import torch

    from spatial_mllm_ros.answering.setup import load_checkpoint

    if torch.cuda.is_available() and shard.world > 1:
        torch.cuda.set_device(shard.local_rank % torch.cuda.device_count())
    return load_checkpoint(checkpoint, device)


def _frame_choice(loaded: LoadedSpatialMllm, device: str, config: RunConfig) -> Callable[[Path], ChosenFrames]:
    if config.choice is FrameChoice.UNIFORM:
        return lambda clip: choose_frames(clip, config.frames)
    from spatial_mllm_ros.encoders.vggt import PointSource, VggtGeometryEncoder

    encoder = VggtGeometryEncoder(
        loaded.model.spatial_encoder,
        device=device,
        window_size=config.candidates,
        anchor_count=0,
        points=PointSource.POINTS,
    )
    choice = by_coverage(encoder)
    return lambda clip: choose_frames(clip, config.frames, candidates=config.candidates, space_aware=choice)
