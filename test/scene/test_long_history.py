"""What a scene remembers of generated rooms: the same round again and again, and a thing that was moved."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.rooms.renderer.packing import pack_worlds
from spatial_mllm_ros.rooms.renderer.renderer import render
from spatial_mllm_ros.rooms.world.parts import ROW_CENTRE, ROW_INSTANCE
from spatial_mllm_ros.rooms.world.walk import make_walk
from spatial_mllm_ros.rooms.world.world import make_world, split_seed
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

W, H = 112, 84
CAMERA = Intrinsics(0.6 * W, 0.61 * W, W / 2 - 1.5, H / 2 + 0.5, W, H)
PERIOD_NS = 200_000_000


def visit(world, walk, frames, start):
    """Frames of one walk, and per stamp the ids of the objects, int16 [H, W]."""
    path = make_walk(world, walk)
    poses = path.poses((np.arange(frames) + 0.5) / frames * path.duration_s)
    k = torch.tensor([[CAMERA.fx_px, CAMERA.fy_px, CAMERA.cx_px, CAMERA.cy_px]]).expand(frames, 4)
    out = render(pack_worlds([world]), torch.zeros(frames, dtype=torch.int64), torch.from_numpy(poses), k, (W, H))
    rgb = (out.rgb * 255.0 + 0.5).clamp(0, 255).to(torch.uint8).numpy()
    depth, ids = out.depth_m.numpy(), out.instance.numpy()
    made = [Frame(1 + (start + i) * PERIOD_NS, rgb[i], "camera", CAMERA, depth[i], poses[i]) for i in range(frames)]
    return made, {frame.stamp_ns: own for frame, own in zip(made, ids, strict=True)}


def moved(world, thing, x_m, y_m):
    """The world with one thing somewhere else."""
    table = world.table.copy()
    own = table[ROW_INSTANCE] == thing
    table[ROW_CENTRE, own] += x_m
    table[ROW_CENTRE + 1, own] += y_m
    return replace(world, table=table)


def scene_of(**changes):
    return Scene(SceneConfig(rate_hz=0.0, ring_frames=32, **changes), SensorDepthEncoder(pixel_stride=1))


def run(scene, frames):
    for frame in frames:
        scene.add(frame)
        scene.process()


def test_the_same_round_ten_times_over_keeps_what_one_round_keeps():
    frames, _ = visit(make_world(split_seed("val", 2)), 0, 40, 0)
    rng = np.random.default_rng(0)
    scene = scene_of(keyframes=1000)
    keyframes, held_bytes, covered = [], [], []
    for number in range(10):
        shift_ns = number * len(frames) * PERIOD_NS
        for frame in frames:
            pose = frame.scene_from_cam.copy()
            pose[:3, 3] += rng.normal(0, 0.005, 3)  # nobody walks quite the same way twice
            run(scene, [replace(frame, stamp_ns=frame.stamp_ns + shift_ns, scene_from_cam=pose)])
        status = scene.status()
        keyframes.append(status.keyframes)
        held_bytes.append(status.pixel_bytes + status.index_bytes)
        covered.append(scene.snapshot.selection.total_voxels)
    # the ring held most of the first round, so the second one is the first whole one
    assert keyframes[-1] <= 2 * len(frames)  # of the 400 seen
    assert np.mean(keyframes[-3:]) <= 1.1 * np.mean(keyframes[3:6])
    assert np.mean(held_bytes[-3:]) <= 1.1 * np.mean(held_bytes[3:6])
    assert all(later >= 0.99 * earlier for earlier, later in pairwise(covered))


def test_the_same_frames_ten_times_over_add_nothing_at_all():
    frames, _ = visit(make_world(split_seed("val", 2)), 0, 40, 0)
    scene, keyframes = scene_of(keyframes=1000), []
    for number in range(10):
        run(scene, [replace(f, stamp_ns=f.stamp_ns + number * len(frames) * PERIOD_NS) for f in frames])
        keyframes.append(scene.status().keyframes)
    assert max(keyframes[1:]) <= len(frames)
    assert keyframes[-1] <= keyframes[1]


@pytest.mark.parametrize(("number", "thing", "x_m", "y_m"), [(2, 4, 0.25, -1.966), (6, 16, -0.269, -2.082)])
def test_the_evidence_shows_a_moved_thing_where_it_is_and_not_where_it_was(number, thing, x_m, y_m):
    world = make_world(split_seed("val", number))
    before, ids_before = visit(world, 0, 80, 0)
    after, ids_after = visit(moved(world, thing, x_m, y_m), 1, 80, 80)

    def shows(ids, stamps_ns):
        return [s for s in stamps_ns if s in ids and (ids[s] == thing).mean() > 0.03]

    scene = scene_of()
    run(scene, before)
    assert len(shows(ids_before, scene.snapshot.selection.stamps_ns)) >= 2
    run(scene, after)
    evidence = scene.snapshot.selection.stamps_ns
    assert len(shows(ids_after, evidence)) >= 2
    assert shows(ids_before, evidence) == []

    forgetting_nothing = scene_of(seen_through_frames=0)
    run(forgetting_nothing, [*before, *after])
    assert shows(ids_before, forgetting_nothing.snapshot.selection.stamps_ns)  # so it is this that made the difference


def test_a_room_in_which_nothing_changed_loses_nothing():
    world = make_world(split_seed("val", 4))
    scene, keeping = scene_of(), scene_of(seen_through_frames=0)
    for walk in (0, 1):
        frames, _ = visit(world, walk, 60, 60 * walk)
        run(scene, frames)
        run(keeping, frames)
    assert scene.snapshot.selection.total_voxels >= 0.998 * keeping.snapshot.selection.total_voxels
