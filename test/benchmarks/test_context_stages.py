from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.benchmarks.context_stages import stage_costs
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.models.small.random_checkpoint import write_random_checkpoint
from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "random-tiny"
    write_random_checkpoint(folder)
    loaded = replace(load_spatial_mllm(folder), budget=PixelBudget(min_px=784, max_px=56 * 84, pil_resize=True))
    return SpatialMllmAnswerModel(loaded, max_new_tokens=3)


@pytest.fixture(scope="module")
def frames():
    random = np.random.default_rng(2)
    return [Frame(stamp_ns=1 + i, rgb=random.integers(0, 256, (60, 84, 3), dtype=np.uint8)) for i in range(4)]


def test_every_stage_has_its_peak_and_its_time(model, frames):
    costs = stage_costs(model, frames, Question("How many chairs?"))
    assert [cost.name for cost in costs] == ["frames", "trunk", "connector", "prefill", "question"]
    assert all(cost.took_ns > 0 and cost.peak_bytes >= 0 for cost in costs)
    assert len(model.tokens) == 0  # nothing measured is left behind
