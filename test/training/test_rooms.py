import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spatial_mllm_ros.datasets.rooms.catalog import LABELS
from spatial_mllm_ros.datasets.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.errors import CheckpointError, ConfigurationError
from spatial_mllm_ros.models.checkpoints import load_spatial_mllm
from spatial_mllm_ros.models.small_architecture import write_new_checkpoint
from spatial_mllm_ros.models.tokenizer_training import spatial_question_corpus, train_tokenizer
from spatial_mllm_ros.models.true_points import point_tokens
from spatial_mllm_ros.training.config import (
    PARTS,
    GeometryConfig,
    GeometryDataConfig,
    GeometryLossConfig,
    GeometryModelConfig,
    PartRates,
    RunConfig,
    SftConfig,
    SftDataConfig,
    SftModelConfig,
)
from spatial_mllm_ros.training.geometry import run_geometry
from spatial_mllm_ros.training.geometry_batch import relative_to_first, world_points
from spatial_mllm_ros.training.geometry_rooms import RoomGeometryBatches
from spatial_mllm_ros.training.sft import run_sft
from spatial_mllm_ros.training.sft_batch import build_batch
from spatial_mllm_ros.training.sft_model import SftObjective
from spatial_mllm_ros.training.sft_rooms import DESCRIBE, RoomRows, description
from spatial_mllm_ros.training.token_truth import token_truth

FAST = PartRates(connector=5e-3, merger=5e-3, language=5e-3, vision=5e-3, spatial=5e-3)


@pytest.fixture(scope="module")
def clip():
    return make_clips([11], ClipConfig(frames=4, width_px=112, height_px=84))[0]


def sft_config(start, out, model=None, **run):
    steps = {"steps": 4, "batch_size": 2, "accumulate": 1, "device": "cpu", "save_every": 2, "seed": 4, **run}
    given = {"trained": PARTS, "token_truth": 1.0, "zeroed": 0.2, "blind": 0.2, **(model or {})}
    return SftConfig(
        model=SftModelConfig(checkpoint=start, **given),
        data=SftDataConfig(rooms_frames=(4, 2)),
        run=RunConfig(out=out, **steps),
        rates=FAST,
    )


def rows(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def test_a_batch_of_rooms_follows_from_its_number_and_agrees_with_itself():
    data = GeometryDataConfig(frames=3, width_px=112, rooms_rates_hz=(4.0, 0.0), rooms_pieces=(1,))
    batches = RoomGeometryBatches(data, batch_size=2, seed=1)
    one, again, next_one = batches.batch(5), batches.batch(5), batches.batch(6)
    assert one.images.shape == (2, 3, 3, 84, 112)
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, next_one.images)
    assert not torch.equal(one.images, RoomGeometryBatches(data, batch_size=2, seed=2).batch(5).images)
    assert not any(torch.equal(one.images[:1], held.images) for held in batches.held_out(2))
    # Points of the middle of frame 2 (at 4 Hz nearly the same view) are where frame 0 has points as well.
    slow = RoomGeometryBatches(replace(data, rooms_rates_hz=(4.0,)), batch_size=1, seed=1).batch(0)
    points = world_points(slow.depth_m, slow.intrinsics_px, relative_to_first(slow.cam_from_world))[0]
    first = points[0][slow.mask[0, 0]]
    middle = points[2, 30:54:8, 40:72:8][slow.mask[0, 2, 30:54:8, 40:72:8]]
    assert torch.cdist(middle, first).min(1).values.median() < 0.15


def test_frames_of_a_room_are_cut_into_samples_from_elsewhere_in_it():
    data = GeometryDataConfig(frames=4, width_px=56, rooms_rates_hz=(4.0,), rooms_pieces=(1, 2))
    whole, cut = (RoomGeometryBatches(data, batch_size=3, seed=0).batch(number) for number in (0, 1))
    assert whole.images.shape[:2] == (3, 4)
    assert cut.images.shape[:2] == (6, 2)
    centres = -(cut.cam_from_world[..., :3].transpose(-1, -2) @ cut.cam_from_world[..., 3:])[..., 0]
    steps = (centres[:, 1] - centres[:, 0]).norm(dim=-1)
    assert steps.max() < 0.3  # a quarter of a second of walking
    assert torch.equal(cut.intrinsics_px[0], cut.intrinsics_px[1])
    assert (centres[0, 0] - centres[1, 0]).norm() > 0.3


def test_the_truth_of_a_token_is_the_thing_with_the_most_pixels_and_its_surface(clip):
    truth = token_truth(clip)
    assert truth.classes.shape == (2 * 3 * 4,)
    scene_from_first = clip.scene_from_cam[0]
    fx, fy, cx, cy = (getattr(clip.intrinsics, name) for name in ("fx_px", "fy_px", "cx_px", "cy_px"))
    checked = 0
    for token in range(24):
        pair, row, column = token // 12, token // 4 % 3, token % 4
        block = (slice(2 * pair, 2 * pair + 2), slice(28 * row, 28 * row + 28), slice(28 * column, 28 * column + 28))
        ids, counts = np.unique(clip.instance[block].numpy(), return_counts=True)
        seen = [(count, i) for i, count in zip(ids, counts, strict=True) if i > 0]
        if not seen or max(seen)[0] < 0.04 * 2 * 28 * 28:
            assert truth.classes[token] == 0
            continue
        thing = clip.annotation.objects[max(seen)[1] - 1]
        assert LABELS[truth.classes[token] - 1] == thing.label
        assert float(truth.lengths_m[token]) == pytest.approx(thing.box.size_m.max(), rel=1e-5)
        frame, v, u = (
            values + start.start
            for values, start in zip(np.nonzero(clip.instance[block].numpy() == thing.id), block, strict=True)
        )
        z = clip.depth_m.numpy()[frame, v, u]
        in_cam = np.stack(((u - cx) / fx * z, (v - cy) / fy * z, z, np.ones_like(z)), -1)
        in_scene = np.einsum("nij,nj->ni", clip.scene_from_cam[frame], in_cam)
        in_first = (np.linalg.inv(scene_from_first) @ in_scene.T).T[:, :3]
        expected = np.nanmean(in_first, axis=0)
        assert truth.surfaces_m[token].numpy() == pytest.approx(expected, abs=2e-3)
        checked += 1
    assert checked >= 3


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

    def broken(self, number, count):
        if number == 3:
            raise KeyboardInterrupt
        return made(self, number, count)

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


def test_geometry_trains_on_rooms(start, tmp_path):
    out = run_geometry(
        GeometryConfig(
            model=GeometryModelConfig(checkpoint=start, learning_rate=5e-3),
            run=RunConfig(out=tmp_path / "run", steps=6, accumulate=1, batch_size=2, device="cpu"),
            data=GeometryDataConfig(frames=4, width_px=56, rooms_pieces=(1, 2)),
            loss=GeometryLossConfig(measure_samples=2, unit_m=3.0),
        )
    )
    found = rows(out.parent)
    assert found[-1]["loss"] < 0.9 * found[0]["loss"]
    assert "rotation_median_deg" in found[-1]


def test_a_blind_model_sees_no_difference_and_a_zeroed_one_reads_no_points(start):
    loaded = load_spatial_mllm(start)
    source = RoomRows(loaded, SftDataConfig(rooms_frames=(4,)), seed=0)
    one, other = source.rows(0, 1)[0], source.rows(1, 1)[0]

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
    row = RoomRows(loaded, SftDataConfig(rooms_frames=(4,), rooms_questions=2), seed=0).rows(3, 2)[1]
    texts = [loaded.tokenizer.decode(torch.tensor(dialogue.ids)) for dialogue in row.dialogues]
    assert DESCRIBE in texts[-1]
    assert len(texts) > 8
    bare = RoomRows(loaded, SftDataConfig(rooms_frames=(4,), rooms_describe=False), seed=0).rows(3, 2)[1]
    assert not any(DESCRIBE in loaded.tokenizer.decode(torch.tensor(d.ids)) for d in bare.dialogues)


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
