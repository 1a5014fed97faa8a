import json
from dataclasses import replace

import torch

from spatial_mllm_ros.training.config import RunConfig
from spatial_mllm_ros.training.geometry.batch import relative_to_first, world_points
from spatial_mllm_ros.training.geometry.config import (
    GeometryConfig,
    GeometryDataConfig,
    GeometryLossConfig,
    GeometryModelConfig,
)
from spatial_mllm_ros.training.geometry.rooms import RoomGeometryBatches
from spatial_mllm_ros.training.geometry.run import run_geometry


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


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
