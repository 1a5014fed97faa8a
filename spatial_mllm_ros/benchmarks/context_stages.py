"""What each stage of making a context takes, in memory and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from spatial_mllm_ros.answering.context import VisualContext
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.benchmarks.process_memory import peak_bytes
from spatial_mllm_ros.frames.frame import Frame

_NO_EPOCH = -1  # the context that is measured belongs to no scene


@dataclass(frozen=True)
class StageCost:
    """One stage.

    Attributes:
        name: ``frames`` (preparation, DINOv2 per frame, Qwen's encoder per pair), ``trunk`` (the aggregator's layers
            over all frames), ``connector``, ``prefill``, ``question`` (prefill of the question and the whole answer).
        peak_bytes: the largest growth of memory, weights and earlier stages not counted.
        took_ns: duration, until the GPU had finished.
    """

    name: str
    peak_bytes: int
    took_ns: int


def stage_costs(model: SpatialMllmAnswerModel, frames: Sequence[Frame], question: Question) -> list[StageCost]:
    """Runs every stage once, with nothing kept from earlier contexts.

    Raises:
        SpatialMllmError: the frames cannot be read, or this system does not tell how much memory is used.
    """
    model.forget()
    images = [frame.rgb for frame in frames]
    build = model.build(frames, epoch=_NO_EPOCH)
    costs = []
    with torch.inference_mode():
        for name, stage in build.stages(images):
            costs.append(_cost(name, stage))
    prefix = build.run(images, interrupt=lambda: False)
    context = VisualContext(
        _NO_EPOCH, tuple(frame.stamp_ns for frame in frames), model.identity.sha256, time.monotonic_ns(), prefix
    )
    costs.append(_cost("question", lambda: model.generate(question, context, should_stop=lambda: False)))
    model.forget()
    return costs


def _cost(name: str, stage: Callable[[], object]) -> StageCost:
    def work() -> int:
        started_ns = time.monotonic_ns()
        stage()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.monotonic_ns() - started_ns

    took_ns, grown = peak_bytes(work)
    return StageCost(name, round(grown), took_ns)
