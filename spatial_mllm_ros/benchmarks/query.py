"""Figures of a question: time to the first token and to the answer, the published way, cold, and on a warm context."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from spatial_mllm_ros.answering.context import ContextConfig, changed_fraction
from spatial_mllm_ros.answering.context_cache import evidence_of
from spatial_mllm_ros.answering.parsing import parse_answer
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.session import Inquiry, SpatialSession
from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.benchmarks.context_stages import stage_costs
from spatial_mllm_ros.benchmarks.published_pipeline import ColdAnswer, PublishedPipeline, asked_text
from spatial_mllm_ros.benchmarks.query_models import SIZES, QuerySize, random_model, size_of_checkpoint
from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.benchmarks.stream_frames import PERIOD_NS, SentFrame, rooms_walk, sent_frames
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import ConfigurationError, SpatialMllmError
from spatial_mllm_ros.frames.codec import decode_compressed_color
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm, load_spatial_mllm
from spatial_mllm_ros.models.spatial_mllm.preparation import evaluation_frame_indices
from spatial_mllm_ros.models.spatial_mllm.prompts import question_ids
from spatial_mllm_ros.recordings.recording import FIRST_STAMP_NS
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

#: The ways to an answer, slowest first, with a description.
WAYS = {
    "published": "published-style: 128 candidates jointly, 16 chosen, encoded, prefilled",
    "chosen": "cold, the 16 frames already chosen: encoded, prefilled",
    "refresh": "warm, while the next context is being made",
    "warm": "warm",
}
QUESTIONS = (
    Question("How many chairs are in this room?"),
    Question("How far is the sofa from the table?"),
    Question("What is the size of this room?"),
    Question("Which of these is closest to the door?", ("bed", "lamp", "sink", "window")),
    Question("What is the height of the fridge in centimeters?"),
)
_ANSWER_TOKENS = 16
_CANDIDATES = 128
_SCENE = SceneConfig(ring_frames=32, keyframes=32, rate_hz=0.0)
_FRAMES_PER_STEP = 4  # seen at a time until the evidence set has changed
_MOST_ATTEMPTS = 4  # per question that is to arrive during a refresh
_GOLDEN = 0.618  # its multiples modulo 1 are spread evenly
# A context of any age may answer: only the time is measured.
_CONTEXT = ContextConfig(refresh_changed_fraction=0.0, refresh_interval_s=0.0, max_changed_fraction=1.0)


@dataclass(frozen=True)
class Walk:
    """What the robot has seen when the questions come.

    Attributes:
        rooms, frames_per_room: of its round, which it goes again and again.
        histories: after how many frames warm questions are asked, ascending.
    """

    rooms: int = 10
    frames_per_room: int = 50
    histories: tuple[int, ...] = (100, 2_000)


@dataclass(frozen=True)
class Asked:
    """One measured question: nanoseconds from its arrival, and the text."""

    first_token_ns: int
    total_ns: int
    text: str


def query_rows(sizes: Sequence[str], checkpoint: Path | None = None, *, walk: Walk | None = None) -> list[Row]:
    """Rows of models with random weights of these sizes, or of a checkpoint folder instead.

    Args:
        walk: what is seen before the questions; None: ten rooms, again and again.

    Raises:
        ConfigurationError: an unknown size.
        CheckpointError: the folder cannot be loaded.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if checkpoint is not None:
        loaded = load_spatial_mllm(checkpoint, device=device)
        return measure(checkpoint.resolve().name, loaded, size_of_checkpoint(loaded), walk)
    unknown = [name for name in sizes if name not in SIZES]
    if unknown:
        raise ConfigurationError(f"Unknown model sizes {', '.join(unknown)}; there are {', '.join(SIZES)}.")
    rows = []
    for name in sizes:
        rows += measure(name, random_model(name, SIZES[name], device=device), SIZES[name], walk)
    return rows


def measure(name: str, loaded: LoadedSpatialMllm, size: QuerySize, walk: Walk | None = None) -> list[Row]:
    """Rows of one model: all ways use the same weights, and the cold ones the same frames or walk as the warm one."""
    walk = walk or Walk()
    frames = rooms_walk(walk.rooms, walk.frames_per_room, width_px=size.width_px, height_px=size.height_px)
    seen = list(islice(cycle(sent_frames(frames)), walk.histories[-1]))
    robot = _Robot(loaded, seen, _SCENE)
    warm: dict[int, list[Asked]] = {}
    for history in walk.histories:
        robot.walk_until(history)
        refresh_s, longest_ms = robot.refresh()
        robot.ask()  # what is set up once
        warm[history] = [robot.ask(number) for number in range(size.warm)]
    newest = warm[walk.histories[-1]]
    pipeline = PublishedPipeline(
        loaded,
        selected_frames=_SCENE.selected_frames,
        candidate_frames=_CANDIDATES,
        sampling_long_side_px=size.sampling_long_side_px,
        max_new_tokens=_ANSWER_TOKENS,
    )
    evidence = [frame.rgb for frame in evidence_of(robot.scene).frames]
    chosen = [pipeline.answer_frames(_question(number), evidence) for number in range(size.chosen)]
    # spread over the whole walk, and decoded beforehand: that is not counted
    indices = evaluation_frame_indices(len(seen), min(_CANDIDATES, len(seen)))
    candidates = [decode_compressed_color("jpeg", seen[index].jpeg) for index in indices]
    published = [pipeline.answer_video(_question(number), candidates) for number in range(size.published)]
    # without keyframes the evidence set never comes to rest
    restless = _Robot(loaded, seen, replace(_SCENE, keyframes=0))
    during, waits_ms = restless.ask_during_refreshes(size.warm // 2, refresh_s)
    columns = {
        "published": [_cold(number, answer) for number, answer in enumerate(published)],
        "chosen": [_cold(number, answer) for number, answer in enumerate(chosen)],
        "refresh": during,
        "warm": newest,
    }
    detail = _setting(loaded, size)
    rows = [row for way in WAYS for row in _way_rows(f"query.{name}", way, columns[way], detail)]
    rows += _ratio_rows(f"query.{name}", columns, warm, detail, aims=name == "mid")
    same = np.mean([cold.text == asked.text for cold, asked in zip(columns["chosen"], newest, strict=False)])
    tokens = [len(question_ids(loaded.tokenizer, asked_text(question, loaded))) for question in QUESTIONS]
    context = robot.session.context
    rows += [
        Row(f"query.{name}.same_answers", 100 * same, "%", "100", "warm and cold on the same frames, texts compared"),
        Row(f"query.{name}.sampling_s", _median([a.sampling_ns for a in published]) / 1e9, "s", "", "published-style"),
        Row(f"query.{name}.vision_s", _median([a.vision_ns for a in chosen]) / 1e9, "s", "", "of the frames chosen"),
        Row(f"query.{name}.refresh_s", refresh_s, "s", "", "a whole context made in the background"),
        Row(f"query.{name}.longest_piece_ms", longest_ms, "ms", "", "of a refresh, between two checks for a question"),
        Row(
            f"query.{name}.leave_p95_ms",
            _percentile(waits_ms, 95),
            "ms",
            "<= 50 or one layer",
            "until a refresh is interrupted",
        ),
        Row(f"query.{name}.question_tokens", float(np.mean(tokens)), "tokens", "", "mean"),
        *_stage_rows(f"query.{name}", loaded, robot),
        Row(f"query.{name}.context_mib", (context.nbytes if context else 0) / 2**20, "MiB", "", "keys and values"),
    ]
    return rows


class _Robot:
    """A scene that receives a walk, and a session that answers questions about it."""

    def __init__(self, loaded: LoadedSpatialMllm, frames: Sequence[SentFrame], config: SceneConfig) -> None:
        self._stream = enumerate(cycle(frames), start=1)
        self._seen = 0
        self.scene = Scene(config, SensorDepthEncoder())
        self.session = SpatialSession(
            self.scene, SpatialMllmAnswerModel(loaded, max_new_tokens=_ANSWER_TOKENS), _CONTEXT
        )

    def walk_until(self, frames: int) -> None:
        """Sees frames until it has seen so many."""
        while self._seen < frames:
            self._seen, frame = next(self._stream)
            frame.take_into(self.scene, FIRST_STAMP_NS + self._seen * PERIOD_NS)
            self.scene.process()

    def refresh(self) -> tuple[float, float]:
        """Makes the context for what has been seen; seconds it took, ms of its longest piece that cannot be left."""
        looks_ns = [time.monotonic_ns()]

        def look() -> bool:
            looks_ns.append(time.monotonic_ns())
            return False

        if not self.session.refresh(look):
            raise SpatialMllmError("The context could not be made; the log says why.")
        look()
        return (looks_ns[-1] - looks_ns[0]) / 1e9, float(np.diff(looks_ns).max()) / 1e6

    def ask(self, number: int = 0, arrived_ns: int | None = None) -> Asked:
        """One question, answered from the context there is."""
        inquiry = Inquiry(_question(number), arrived_ns or time.monotonic_ns())
        answer = self.session.answer(inquiry)
        if answer.context != "warm":
            raise SpatialMllmError(f"A question was not answered from the warm context: {answer.message}")
        return Asked(answer.timings.first_token_ns, answer.timings.total_ns, answer.text)

    def ask_during_refreshes(self, questions: int, refresh_s: float) -> tuple[list[Asked], list[float]]:
        """Questions that arrive at all moments of a refresh, and the ms until the refresh was left.

        The worker that makes the context is the one that answers, as in the node: it asks between two layers whether
        a question has arrived. A refresh that ends before the question arrives is not counted.
        """
        asked: list[Asked] = []
        waits_ms: list[float] = []
        self.walk_until(self._seen + _SCENE.ring_frames)
        self.refresh()
        for attempt in range(_MOST_ATTEMPTS * questions):
            if len(asked) == questions:
                break
            while not self.session.context_cache.refreshing and not self._changed():
                self.walk_until(self._seen + _FRAMES_PER_STEP)
            share = (attempt * _GOLDEN) % 1  # spread over the refresh, however many are counted
            arrives_ns = time.monotonic_ns() + round(share * refresh_s * 1e9)
            if self.session.refresh(lambda at=arrives_ns: time.monotonic_ns() >= at):  # type: ignore[misc]
                continue
            waits_ms.append((time.monotonic_ns() - arrives_ns) / 1e6)
            asked.append(self.ask(len(asked), arrives_ns))
        return asked, waits_ms

    def _changed(self) -> bool:
        context = self.session.context
        return context is None or changed_fraction(context.stamps_ns, evidence_of(self.scene).stamps_ns) > 0


def _question(number: int) -> Question:
    return QUESTIONS[number % len(QUESTIONS)]


def _cold(number: int, answer: ColdAnswer) -> Asked:
    return Asked(answer.first_token_ns, answer.total_ns, parse_answer(_question(number), answer.text).text)


def _setting(loaded: LoadedSpatialMllm, size: QuerySize) -> str:
    weights = "random weights" if loaded.identity.random_weights else f"weights {loaded.identity.sha256[:12]}"
    device = loaded.model.device.type
    parameters = sum(weight.numel() for weight in loaded.model.parameters())
    dtype = str(next(loaded.model.model.language_model.parameters()).dtype).removeprefix("torch.")
    return (
        f"{parameters / 1e6:.0f} M parameters, {weights}, {dtype}, {device}, {torch.get_num_threads()} CPU threads, "
        f"frames of {size.width_px}x{size.height_px}, at most {_ANSWER_TOKENS} tokens per answer"
    )


def _way_rows(prefix: str, way: str, asked: Sequence[Asked], detail: str) -> list[Row]:
    rows = []
    for what in ("first_token", "total"):
        times = [getattr(one, f"{what}_ns") / 1e6 for one in asked]
        for share in (50, 95):
            name = f"{prefix}.{way}.{what}_p{share}_ms"
            rows.append(Row(name, _percentile(times, share), "ms", "", f"{WAYS[way]}; n = {len(asked)}; {detail}"))
    return rows


def _ratio_rows(
    prefix: str, columns: dict[str, list[Asked]], warm: dict[int, list[Asked]], detail: str, *, aims: bool
) -> list[Row]:
    first = {way: _median([one.first_token_ns for one in asked]) for way, asked in columns.items()}
    rows = []
    for way, aim in (("published", ">= 50"), ("chosen", ">= 10")):
        for base in ("warm", "refresh"):
            said = f"time to the first token, medians; {detail}"
            stated = aim if aims and base == "warm" else ""
            rows.append(Row(f"{prefix}.{way}_over_{base}", first[way] / first[base], "", stated, said))
    short, long = min(warm), max(warm)
    medians = {history: _median([one.first_token_ns for one in asked]) for history, asked in warm.items()}
    said = f"warm first token after {long} frames seen ({medians[long] / 1e6:.2f} ms) over that after {short}"
    rows.append(Row(f"{prefix}.first_token_over_history", medians[long] / medians[short], "", "<= 1.05", said))
    return rows


def _stage_rows(prefix: str, loaded: LoadedSpatialMllm, robot: _Robot) -> list[Row]:
    """Time and peak memory of each stage of a context, and of a question about it, each run once."""
    model = SpatialMllmAnswerModel(loaded, max_new_tokens=_ANSWER_TOKENS)
    rows = []
    for stage in stage_costs(model, evidence_of(robot.scene).frames, _question(0)):
        said = "how far memory grew in this stage of a context, nothing kept from earlier ones; once"
        rows.append(Row(f"{prefix}.stage.{stage.name}_mib", stage.peak_bytes / 2**20, "MiB", "", said))
        rows.append(Row(f"{prefix}.stage.{stage.name}_ms", stage.took_ns / 1e6, "ms", "", "once"))
    return rows


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _percentile(values: Sequence[float], share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else 0.0
