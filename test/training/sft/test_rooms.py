import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spatial_mllm_ros.errors import CheckpointError, ConfigurationError
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.models.small.architecture import write_new_checkpoint
from spatial_mllm_ros.models.small.tokenizer_training import spatial_question_corpus, train_tokenizer
from spatial_mllm_ros.models.spatial_mllm.preparation import PATCH_PX, prepare_video
from spatial_mllm_ros.models.spatial_mllm.true_points import point_tokens
from spatial_mllm_ros.rooms.points import patch_points, points_in_first_camera
from spatial_mllm_ros.training.config import RunConfig
from spatial_mllm_ros.training.run_folder import BadSamples
from spatial_mllm_ros.training.sft.batch import build_batch
from spatial_mllm_ros.training.sft.config import PARTS, PartRates, SftConfig, SftDataConfig, SftModelConfig
from spatial_mllm_ros.training.sft.model import SftObjective
from spatial_mllm_ros.training.sft.room_pool import RoomFrames, RoomPool
from spatial_mllm_ros.training.sft.rooms import DESCRIBE, RoomRows, description
from spatial_mllm_ros.training.sft.run import run_sft
from spatial_mllm_ros.training.sft.stage import SftStage
from spatial_mllm_ros.training.supervision.tokens import token_targets

FAST = PartRates(connector=5e-3, merger=5e-3, language=5e-3, vision=5e-3, spatial=5e-3)


def sft_config(start, out, model=None, **run):
    steps = {"steps": 4, "batch_size": 2, "accumulate": 1, "device": "cpu", "save_every": 2, "seed": 4, **run}
    weights = {"token_supervision": 1.0, "mention_supervision": 1.0}
    given = {"trained": PARTS, **weights, "zeroed": 0.2, "blind": 0.2, **(model or {})}
    return SftConfig(
        model=SftModelConfig(checkpoint=start, **given),
        data=SftDataConfig(rooms_frames=(4, 2)),
        run=RunConfig(out=out, **steps),
        rates=FAST,
    )


def rows(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def test_questions_about_rooms_know_their_options_and_numbers(start):
    loaded = load_spatial_mllm(start)
    source = RoomRows(loaded, SftDataConfig(rooms_frames=(4,), rooms_questions=2, rooms_describe=False), seed=0)
    seen = {True: 0, False: 0}
    for row in source.rows(3, 4, 0):
        batch = build_batch(loaded.tokenizer, [row], loaded.model.model.mrope_rule)
        assert int(batch.readings[0].isfinite().any(-1).sum()) == sum(
            int(d.readings.isfinite().any(-1).sum()) for d in row.dialogues
        )
        for dialogue in row.dialogues:
            text = loaded.tokenizer.decode(torch.tensor(dialogue.ids))
            answer = loaded.tokenizer.decode([label for label in dialogue.labels if label >= 0])
            number = dialogue.readings[dialogue.answer_start - 1, 13]
            assert bool(number.isfinite()) == ("Options" not in text)
            if number.isfinite():
                assert math.exp(number) == pytest.approx(float(answer), rel=1e-5)
            rights = dialogue.readings[:, 12][dialogue.readings[:, 12].isfinite()].tolist()
            if rights:
                assert rights.index(1.0) == "ABCD".index(answer)
                assert sum(rights) == 1
            seen[bool(rights)] += 1
    assert min(seen.values()) >= 4


def test_rows_ask_questions_of_the_types_that_are_wanted_only(start):
    loaded = load_spatial_mllm(start)
    wanted = ("object_presence", "room_size_estimation")
    data = SftDataConfig(rooms_frames=(4,), rooms_questions=3, rooms_describe=False, rooms_types=wanted)
    texts = [
        loaded.tokenizer.decode(dialogue.ids)
        for row in RoomRows(loaded, data, seed=0).rows(3, 4, 0)
        for dialogue in row.dialogues
    ]
    starts = Counter("Is there a" in text for text in texts)
    assert starts[True] > starts[False] > 0  # several classes to ask for, one size
    assert all("Is there a" in text or "What is the size of this room" in text for text in texts)
    with pytest.raises(ConfigurationError, match=r"rooms_types is \('colour',\)"):
        SftDataConfig(rooms_types=("colour",))


def test_tokens_of_true_points_have_one_length_and_tell_points_apart():
    points = torch.tensor([[0.3, -1.2, 2.5], [0.35, -1.2, 2.5], [float("nan"), 0.0, 1.0]])
    tokens = point_tokens(points, 96)
    assert tokens.shape == (3, 96)
    assert tokens[:2].norm(dim=-1).tolist() == pytest.approx([48**0.5] * 2, rel=1e-5)
    assert (tokens[0] - tokens[1]).norm() > 0.5
    assert tokens[2].isfinite().all()


def test_a_description_counts_what_the_clip_shows(clip):
    text = description(clip.annotation)
    shown = clip.annotation.visibility.pixels.sum(0) >= 12
    labels = [thing.label for thing, seen in zip(clip.annotation.objects, shown, strict=True) if seen]
    area = sum(room.area_m2 for room in clip.annotation.rooms)
    assert text.startswith(f"{len(clip.annotation.rooms)} rooms, {area:.0f} square meters. ")
    assert set(text.partition(". ")[2].split(", ")) == {f"{labels.count(a)} {a}" for a in set(labels)}


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    out = tmp_path_factory.mktemp("rooms") / "run"
    run_sft(sft_config(start, out))
    return out


def test_the_loss_on_rooms_falls(whole):
    found = rows(whole)
    assert len(found) == 4
    assert found[-1]["loss"] < found[0]["loss"] - 1.0
    assert load_spatial_mllm(whole / "checkpoint").identity.random_weights is False


def test_a_run_on_rooms_broken_off_and_resumed_is_the_same_run(whole, start, tmp_path, monkeypatch):
    out, made = tmp_path / "run", RoomRows.rows

    def broken(self, number, count, turn):
        if number == 3:
            raise KeyboardInterrupt
        return made(self, number, count, turn)

    monkeypatch.setattr(RoomRows, "rows", broken)
    with pytest.raises(KeyboardInterrupt):
        run_sft(sft_config(start, out))
    monkeypatch.setattr(RoomRows, "rows", made)
    assert len(rows(out)) == 3
    run_sft(sft_config(start, out, resume=True))
    assert rows(out) == rows(whole)
    one, other = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (out, whole))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_a_run_told_to_stop_finishes_with_what_it_has(whole, start, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "stop").touch()
    finished = run_sft(sft_config(start, out))
    assert rows(out) == rows(whole)[:1]
    assert load_spatial_mllm(finished).identity.random_weights is False


def test_a_blind_model_sees_no_difference_and_a_zeroed_one_reads_no_points(start):
    loaded = load_spatial_mllm(start)
    source = RoomRows(loaded, SftDataConfig(rooms_frames=(4,)), seed=0)
    one, other = source.rows(0, 1, 0)[0], source.rows(1, 1, 0)[0]

    def loss(row, **model):
        settings = SftModelConfig(checkpoint=start, **model)
        batch = build_batch(loaded.tokenizer, [row], loaded.model.model.mrope_rule)
        with torch.no_grad():
            return float(SftObjective(loaded.model, settings)(batch)["loss"])

    other_frames = replace(other, dialogues=one.dialogues)
    assert loss(one, blind=1.0) == pytest.approx(loss(other_frames, blind=1.0))
    assert loss(one) != pytest.approx(loss(other_frames), rel=1e-6)
    assert loss(one, zeroed=1.0) == loss(one, zeroed=1.0, spatial="true_points")
    assert loss(one) != pytest.approx(loss(one, spatial="true_points"), rel=1e-6)


def test_every_row_asks_for_the_description_unless_told_not_to(start):
    loaded = load_spatial_mllm(start)
    row = RoomRows(loaded, SftDataConfig(rooms_frames=(4,), rooms_questions=2), seed=0).rows(3, 2, 0)[1]
    texts = [loaded.tokenizer.decode(torch.tensor(dialogue.ids)) for dialogue in row.dialogues]
    assert DESCRIBE in texts[-1]
    assert len(texts) > 8
    bare = RoomRows(loaded, SftDataConfig(rooms_frames=(4,), rooms_describe=False), seed=0).rows(3, 2, 0)[1]
    assert not any(DESCRIBE in loaded.tokenizer.decode(torch.tensor(d.ids)) for d in bare.dialogues)


def test_processes_of_one_step_have_clips_of_equal_length_in_other_rooms(start, tmp_path):
    loaded = load_spatial_mllm(start)
    with SftStage(loaded, sft_config(start, tmp_path), BadSamples(tmp_path / "bad.jsonl")) as stage:
        lengths, rooms = {}, {}
        for step, rank in itertools.product(range(2), range(2)):
            (batch,) = stage.batches(step, rank, 2)
            lengths[step, rank] = {int(item.video_grid_thw[0, 0]) for item in batch.prepared}
            rooms[step, rank] = float(batch.prepared[0].spatial_images.sum())
    assert lengths == {(0, 0): {2}, (0, 1): {2}, (1, 0): {1}, (1, 1): {1}}
    assert len(set(rooms.values())) == 4


def test_without_dialogues_the_language_model_does_not_run_and_tokens_are_learned(start, tmp_path, monkeypatch):
    config = sft_config(start, tmp_path / "run", {"trained": ("connector", "merger", "vision", "spatial")}, steps=6)
    data = replace(config.data, rooms_questions=0, rooms_describe=False, rooms_frames=(4,))

    def refuse(*_, **__):
        raise AssertionError("the language model ran")

    monkeypatch.setattr(SftObjective, "_answers", refuse)
    finished = run_sft(replace(config, data=data, model=replace(config.model, mention_supervision=0.0)))
    found = rows(finished.parent)
    assert found[-1]["loss"] < found[0]["loss"] - 1.0
    before, after = (load_spatial_mllm(folder).model.state_dict() for folder in (start, finished))
    changed = {name.split(".")[1] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"connector", "visual", "spatial_encoder"}
    with pytest.raises(ConfigurationError, match="nothing to learn"):
        replace(config, data=data, model=replace(config.model, token_supervision=0.0))


def test_frames_cut_from_a_room_know_what_they_show_in_their_own_first_camera(clip, start):
    budget = load_spatial_mllm(start).budget
    chosen = np.array([1, 3])
    row = RoomFrames.of_clip(clip).row(chosen, budget)
    assert row.dialogues == []
    points = points_in_first_camera(clip.depth_m[chosen], clip.scene_from_cam[chosen], clip.intrinsics)
    alike = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4, equal_nan=True)
    alike(row.token_targets.patches_m, patch_points(points, PATCH_PX))
    alike(row.token_targets.patches_m[0], row.token_targets.in_camera_m[0])
    assert (row.token_targets.patches_m[1] - row.token_targets.in_camera_m[1]).abs().nanmean() > 0.1
    assert torch.equal(row.token_targets.shown, token_targets(clip).shown[chosen])
    images = prepare_video(list(clip.rgb[chosen].numpy()), budget).spatial_images
    assert torch.equal(row.prepared.spatial_images, images)


def test_rows_of_a_pool_follow_from_the_step_and_are_more_where_they_are_shorter(start, tmp_path):
    loaded = load_spatial_mllm(start)
    config = sft_config(start, tmp_path, {"mention_supervision": 0.0})
    data = replace(config.data, rooms_frames=(2, 8), rooms_pool=6, rooms_questions=0, rooms_describe=False)
    seen = {}
    for turn, rank in itertools.product(range(2), range(2)):
        with SftStage(loaded, replace(config, data=data), BadSamples(tmp_path / "bad.jsonl")) as stage:
            for step in range(2):
                (batch,) = stage.batches(step, rank, 2)
                seen[turn, step, rank] = [item.spatial_images for item in batch.prepared]
    assert {key[1:]: (len(rows), len(rows[0])) for key, rows in seen.items()} == {
        (0, 0): (8, 2),
        (0, 1): (8, 2),
        (1, 0): (2, 8),
        (1, 1): (2, 8),
    }
    for (turn, step, rank), images in seen.items():
        assert all(torch.equal(one, other) for one, other in zip(images, seen[1 - turn, step, rank], strict=True))
    ranks = [{frame.sum().item() for images in seen[0, 0, rank] for frame in images} for rank in range(2)]
    assert len(ranks[0]) > 4
    assert not ranks[0] & ranks[1]
    with (
        SftStage(loaded, replace(config, data=data), BadSamples(tmp_path / "bad.jsonl")) as stage,
        pytest.raises(ConfigurationError, match="each of the 7 processes needs a room of its own"),
    ):
        stage.batches(0, 0, 7)


def test_a_run_on_a_pool_broken_off_and_resumed_is_the_same_run(start, tmp_path, monkeypatch):
    def run(out, **more):
        config = sft_config(start, out, {"trained": ("connector", "merger", "vision", "spatial")}, **more)
        data = replace(config.data, rooms_questions=0, rooms_describe=False, rooms_pool=3)
        run_sft(replace(config, data=data, model=replace(config.model, mention_supervision=0.0)))

    made = RoomPool.rows

    def broken(self, count, frames, seed):
        if seed[-1] == 3:
            raise KeyboardInterrupt
        return made(self, count, frames, seed)

    run(tmp_path / "whole")
    monkeypatch.setattr(RoomPool, "rows", broken)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    monkeypatch.setattr(RoomPool, "rows", made)
    run(tmp_path / "broken", resume=True)
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_a_pool_of_rooms_gives_no_dialogues_and_says_so():
    parts = {"model": SftModelConfig(checkpoint=Path("x"), token_supervision=1.0), "run": RunConfig(out=Path("y"))}
    with pytest.raises(ConfigurationError, match=r"cut from a pool of rooms have no dialogues; set data\.rooms_pool"):
        SftConfig(data=SftDataConfig(rooms_pool=3), **parts)


@pytest.mark.parametrize("rms", [0.1, 3.0])
def test_visual_tokens_are_brought_to_a_size_and_keep_their_direction(start, tmp_path, rms):
    loaded, scaled = load_spatial_mllm(start), load_spatial_mllm(start)
    config = sft_config(start, tmp_path, {"token_rms": rms})
    with SftStage(scaled, config, BadSamples(tmp_path / "bad.jsonl")) as stage:
        (batch,) = stage.batches(5, 0, 1)
    before, after = (torch.cat([m.model.visual_embeddings(p) for p in batch.prepared]) for m in (loaded, scaled))
    assert float(after.square().mean().sqrt()) == pytest.approx(rms, rel=0.2)  # measured on other rooms
    assert torch.allclose(after / after.norm(), before / before.norm(), atol=1e-5)


def test_a_finished_checkpoint_has_its_tokens_at_the_size_it_was_trained_with(start, tmp_path):
    settings = {"token_rms": 3.0, "trained": ("language",), "token_supervision": 0.0}
    finished = run_sft(sft_config(start, tmp_path / "run", settings, steps=1))
    before, after = (load_spatial_mllm(folder).model.model for folder in (start, finished))
    ratio = after.connector.last_layer.weight / before.connector.last_layer.weight
    assert ratio.std() < 1e-3
    assert abs(float(ratio.mean()) - 1) > 0.1
    assert (
        float((after.visual.merger.mlp[-1].bias / before.visual.merger.mlp[-1].bias).nanmean())
        == pytest.approx(float(ratio.mean()), rel=1e-3)
        or not before.visual.merger.mlp[-1].bias.any()
    )


def test_the_vggt_of_another_checkpoint_is_taken_and_kept(start, smallest, tmp_path):
    other = tmp_path / "other"
    write_new_checkpoint(other, smallest, train_tokenizer(spatial_question_corpus()), licence="mit", seed=8)
    settings = {"spatial_encoder": other, "trained": ("connector",)}
    finished = run_sft(sft_config(start, tmp_path / "run", settings, steps=1))
    wanted = load_spatial_mllm(other).model.model.spatial_encoder.state_dict()
    got = load_spatial_mllm(finished).model.model.spatial_encoder.state_dict()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    described = json.loads((tmp_path / "run" / "run.json").read_text())["spatial_encoder"]
    assert described["name"] == "other"
    larger = replace(smallest, vggt=replace(smallest.vggt, embed_dim=32))
    write_new_checkpoint(tmp_path / "larger", larger, train_tokenizer(spatial_question_corpus()), licence="mit", seed=8)
    with pytest.raises(CheckpointError, match="other sizes"):
        run_sft(sft_config(start, tmp_path / "no", {"spatial_encoder": tmp_path / "larger"}))


def test_what_only_rooms_can_give_is_refused_for_files(start, tmp_path):
    with pytest.raises(ConfigurationError, match="known of generated rooms only"):
        SftConfig(
            model=SftModelConfig(checkpoint=start, spatial="true_points"),
            run=RunConfig(out=tmp_path),
            data=SftDataConfig(files=(tmp_path / "a.jsonl",)),
        )
    with pytest.raises(ConfigurationError, match="have no end"):
        run_sft(sft_config(start, tmp_path / "run", steps=0))
