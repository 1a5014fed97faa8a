import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from spatial_mllm_ros.models.checkpoints.files import write_checkpoint
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm, load_vggt
from spatial_mllm_ros.training.config import OptimiserConfig, RunConfig
from spatial_mllm_ros.training.geometry.config import GeometryConfig, GeometryLossConfig, GeometryModelConfig
from spatial_mllm_ros.training.geometry.run import run_geometry


class Scenes:
    """Batches of the test scenes; breaks off before a batch if told to, as a crash would."""

    sha256 = {"scenes": "1"}  # noqa: RUF012
    rejected = 0

    def __init__(self, make, crash_at=None):
        self.make, self.crash_at = make, crash_at

    def batch(self, index):
        if index == self.crash_at:
            raise KeyboardInterrupt
        return self.make(index % 3, batch=2)

    def held_out(self, count):
        return [self.make(100 + index) for index in range(count)]


def config(start, out, **run):
    run = {"steps": 8, "accumulate": 2, "save_every": 3, "device": "cpu", **run}
    return GeometryConfig(
        model=GeometryModelConfig(checkpoint=start, learning_rate=1e-2),
        run=RunConfig(out=out, **run),
        loss=GeometryLossConfig(measure_every=4, measure_samples=2, unit_m=2.0),
        optimiser=OptimiserConfig(weight_decay=0.01),
    )


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(start, scene_batch, tmp_path_factory):
    out = tmp_path_factory.mktemp("geometry") / "run"
    run_geometry(config(start, out), lambda *_: Scenes(scene_batch))
    return out


def test_the_loss_falls_and_held_out_errors_are_written_down(whole):
    found = rows(whole)
    assert found[-1]["loss"] < 0.7 * found[0]["loss"]
    assert [row["step"] for row in found if "depth_abs_rel" in row] == [4, 8]
    assert {"rotation_median_deg", "translation_median_m", "view_median_deg"} <= set(found[-1])


def test_a_run_broken_off_and_resumed_is_the_same_run(whole, start, scene_batch, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_geometry(config(start, out), lambda *_: Scenes(scene_batch, crash_at=2 * 4 + 1))
    assert [row["step"] for row in rows(out)] == [1, 2, 3, 4]
    run_geometry(config(start, out, resume=True), lambda *_: Scenes(scene_batch))
    drop = ("seconds",)
    kept = [[{k: v for k, v in row.items() if k not in drop} for row in rows(folder)] for folder in (out, whole)]
    assert kept[0] == kept[1]
    one, other = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (out, whole))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_bf16_stays_close_to_float32(whole, start, scene_batch, tmp_path):
    run_geometry(config(start, tmp_path / "run", precision="bf16"), lambda *_: Scenes(scene_batch))
    pairs = [(one["loss"], other["loss"]) for one, other in zip(rows(tmp_path / "run"), rows(whole), strict=True)]
    assert all(one == pytest.approx(other, rel=0.1, abs=0.1) for one, other in pairs)


def test_only_vggt_changes_and_the_folder_says_what_its_unit_is_and_that_its_language_is_still_random(whole, start):
    before, after = (load_file(folder / "model.safetensors") for folder in (start, whole / "checkpoint"))
    assert before.keys() == after.keys()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"spatial_encoder"}
    loaded = load_spatial_mllm(whole / "checkpoint")
    assert loaded.config["spatial_unit_m"] == 2.0
    assert loaded.identity.random_weights


def test_a_vggt_alone_can_be_trained_without_metric_scale(start, scene_batch, tmp_path):
    tensors = load_file(start / "model.safetensors")
    prefix = "spatial_encoder.vggt_model."
    inner = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    sizes = json.loads((start / "config.json").read_text())["vggt_config"]
    write_checkpoint(tmp_path / "vggt", {"vggt_config": sizes}, {**inner, "track_head.kept": torch.ones(3)})
    settings = config(tmp_path / "vggt", tmp_path / "run", steps=1)
    settings = replace(settings, loss=replace(settings.loss, scale="normalised"))
    folder = run_geometry(settings, lambda *_: Scenes(scene_batch))
    trained = load_file(folder / "model.safetensors")
    assert torch.equal(trained["track_head.kept"], torch.ones(3))
    assert "spatial_unit_m" not in json.loads((folder / "config.json").read_text())
    assert not torch.equal(load_vggt(folder).aggregator.camera_token, inner["aggregator.camera_token"])


def test_heads_alone_can_be_trained_for_an_aggregator_that_others_read(start, scene_batch, tmp_path):
    settings = config(start, tmp_path / "run", steps=2)
    settings = replace(settings, model=replace(settings.model, trained="heads"))
    finished = run_geometry(settings, lambda *_: Scenes(scene_batch))
    before, after = (load_spatial_mllm(folder).model.model.spatial_encoder.state_dict() for folder in (start, finished))
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"camera_head", "depth_head", "point_head"}
