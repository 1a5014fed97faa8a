import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.benchmarks import query as benchmark_query
from spatial_mllm_ros.benchmarks.plots import draw_query
from spatial_mllm_ros.benchmarks.published_pipeline import PublishedPipeline
from spatial_mllm_ros.benchmarks.query import WAYS, Walk, measure, query_rows
from spatial_mllm_ros.benchmarks.query_models import SIZES, random_model, size_of_checkpoint
from spatial_mllm_ros.benchmarks.stream_frames import rooms_walk
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.loading import save_spatial_mllm
from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget
from spatial_mllm_ros.models.vggt import VggtOutput
from spatial_mllm_ros.scene.offline.selection import select_offline

TINY = SIZES["tiny"]
SMALL = replace(
    TINY,
    architecture=replace(
        TINY.architecture,
        vggt=replace(TINY.architecture.vggt, depth=2, dino_depth=1, dpt_layers=(0, 0, 1, 1)),
        layers=2,
        vision_layers=2,
        vision_full_attention=(1,),
        budget=PixelBudget(min_px=84 * 56, max_px=84 * 56, pil_resize=True),
    ),
    width_px=84,
    height_px=56,
    sampling_long_side_px=70,
    published=1,
    chosen=2,
    warm=6,
)
QUESTION = Question("How far is the lamp from the door?")


@pytest.fixture(scope="module")
def loaded():
    return random_model("small", SMALL, device="cpu")


@pytest.fixture(scope="module")
def video():
    return [frame.rgb for frame in rooms_walk(2, 6, width_px=84, height_px=56)]


def pipeline(loaded, **changes):
    given = {"selected_frames": 4, "candidate_frames": 9, "sampling_long_side_px": 70, "max_new_tokens": 5}
    return PublishedPipeline(loaded, **{**given, **changes})


def test_the_published_way_selects_what_the_offline_selection_selects_from_one_joint_pass(loaded, video):
    published = pipeline(loaded, candidate_frames=len(video))
    points, confidence = published.points(video)
    assert points.shape == (12, 42, 70, 3)
    assert published.sample(video) == list(select_offline(points, confidence, 4).indices)
    images = torch.stack([torch.tensor(frame) for frame in video]).permute(0, 3, 1, 2).float()
    images = torch.nn.functional.interpolate(images, size=(42, 70), mode="bicubic", antialias=True)
    with torch.inference_mode():
        joint = loaded.model.spatial_encoder(images.clamp(0, 255).round()[None] / 255, (VggtOutput.POINTS,))
    assert np.allclose(points, joint.points_world[0].numpy(), atol=1e-5)


def test_the_published_way_looks_at_so_many_frames_spread_over_the_video(loaded, video, monkeypatch):
    published = pipeline(loaded)
    shown = []
    monkeypatch.setattr(
        PublishedPipeline, "points", lambda self, frames: shown.extend(frames) or points_of(len(frames))
    )
    chosen = published.sample(video)
    indices = [next(i for i, frame in enumerate(video) if frame is one) for one in shown]
    assert len(indices) == 9
    assert (indices[0], indices[-1]) == (0, 11)
    assert set(chosen) <= set(indices)


def points_of(count):
    random = np.random.default_rng(3)
    return random.normal(size=(count, 4, 6, 3)).astype(np.float32), np.ones((count, 4, 6), np.float32)


def test_every_way_gives_the_same_answer_from_the_same_frames(loaded, video):
    published = pipeline(loaded)
    chosen = [video[index] for index in published.sample(video)]
    whole, given = published.answer_video(QUESTION, video), published.answer_frames(QUESTION, chosen)
    model = SpatialMllmAnswerModel(loaded, max_new_tokens=5)
    frames = [Frame(1 + index, rgb) for index, rgb in enumerate(chosen)]
    context = model.prepare(frames, epoch=0, interrupt=lambda: False)
    warm = model.generate(QUESTION, context, should_stop=lambda: False)
    assert whole.token_ids == given.token_ids == warm.token_ids
    assert len(warm.token_ids) == 5
    assert 0 < whole.sampling_ns < whole.sampling_ns + whole.vision_ns < whole.first_token_ns < whole.total_ns
    assert given.sampling_ns == 0


def test_every_way_reads_the_weights_of_the_one_model_it_was_given(video):
    other = random_model("small", SMALL, device="cpu")
    published, model = pipeline(other), SpatialMllmAnswerModel(other, max_new_tokens=5)
    frames = [Frame(1 + index, rgb) for index, rgb in enumerate(video[:4])]

    def answers():
        model.forget()
        context = model.prepare(frames, epoch=0, interrupt=lambda: False)
        warm = model.generate(QUESTION, context, should_stop=lambda: False)
        return published.answer_frames(QUESTION, video[:4]).token_ids, warm.token_ids

    cold_before, warm_before = answers()
    points_before, _ = published.points(video[:4])
    with torch.no_grad():
        other.model.model.language_model.norm.weight.mul_(-1.0)  # the likeliest token becomes the least likely
        for weight in other.model.spatial_encoder.point_head.parameters():
            weight.mul_(-1.5)
    cold_after, warm_after = answers()
    assert cold_before == warm_before != cold_after == warm_after
    assert not np.allclose(published.points(video[:4])[0], points_before)


def test_a_model_never_ends_its_answer_and_half_precision_spares_the_heads():
    half = random_model("small", replace(SMALL, half=True), device="cpu")
    assert half.model.dtype == torch.bfloat16
    assert next(half.model.spatial_encoder.point_head.parameters()).dtype == torch.float32
    assert {b.dtype for n, b in half.model.named_buffers() if "inv_freq" in n} == {torch.float32}
    assert half.model.generation_config.eos_token_id is None
    assert half.identity.random_weights


def test_the_rows_name_every_way_and_hold_what_the_issue_compares(loaded, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_query, "_CANDIDATES", 6)
    rows = measure("mid", loaded, SMALL, Walk(rooms=2, frames_per_room=10, histories=(12, 30)))
    json.dumps([row.to_json() for row in rows], allow_nan=False)
    named = {row.name: row for row in rows}
    for way in WAYS:
        for what in ("first_token", "total"):
            p50, p95 = (named[f"query.mid.{way}.{what}_p{share}_ms"].value for share in (50, 95))
            assert 0 < p50 <= p95
        assert named[f"query.mid.{way}.first_token_p50_ms"].value < named[f"query.mid.{way}.total_p50_ms"].value
    detail = named["query.mid.warm.first_token_p50_ms"].detail
    for said in ("n = 6", "random weights", "CPU threads", "84x56", "M parameters", "float32"):
        assert said in detail
    assert named["query.mid.published_over_warm"].aim == ">= 50"
    assert named["query.mid.chosen_over_warm"].aim == ">= 10"
    first = {way: named[f"query.mid.{way}.first_token_p50_ms"].value for way in WAYS}
    assert named["query.mid.published_over_warm"].value == pytest.approx(first["published"] / first["warm"])
    assert named["query.mid.same_answers"].value == 100
    assert named["query.mid.stage.trunk_ms"].value > 0
    assert named["query.mid.first_token_over_history"].value > 0
    assert 0 < named["query.mid.longest_piece_ms"].value < 1e3 * named["query.mid.refresh_s"].value
    draw_query(rows, tmp_path / "query.svg")
    text = "".join(ET.parse(tmp_path / "query.svg").getroot().itertext())
    for words in ("published-style", "cold, frames chosen", "during a refresh", "milliseconds", "random weights"):
        assert words in text


def test_unknown_sizes_and_rows_of_other_parts_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="Unknown model sizes huge; there are tiny, mid, full"):
        query_rows(["huge"])
    with pytest.raises(ConfigurationError, match="nothing of the part query"):
        draw_query([], tmp_path / "query.svg")


def test_a_checkpoint_is_measured_under_its_own_name(loaded, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_query, "_CANDIDATES", 4)
    monkeypatch.setitem(SIZES, "tiny", replace(SMALL, chosen=1, warm=2))
    save_spatial_mllm(tmp_path / "little", loaded.model, loaded.config, loaded.tokenizer)
    rows = query_rows([], tmp_path / "little", walk=Walk(rooms=1, frames_per_room=8, histories=(8,)))
    assert {row.name.split(".")[1] for row in rows} == {"little"}
    named = {row.name: row for row in rows}
    assert "frames of 56x56" in named["query.little.warm.first_token_p50_ms"].detail
    assert named["query.little.published_over_warm"].aim == ""
    assert named["query.little.same_answers"].value == 100


def test_a_checkpoint_is_shown_frames_of_its_own_size(loaded):
    size = size_of_checkpoint(loaded)
    assert (size.height_px, size.width_px) == loaded.budget.size_px(480, 640)
    assert size.sampling_long_side_px == size.width_px
    assert size.warm == TINY.warm
