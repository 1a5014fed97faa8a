import numpy as np
import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.rooms.renderer.packing import pack_worlds
from spatial_mllm_ros.rooms.renderer.renderer import render
from spatial_mllm_ros.rooms.world.parts import (
    ROW_CENTRE,
    ROW_GLOW,
    ROW_INSTANCE,
    ROW_MATRIX,
    ROW_TAPER,
    Shape,
)
from spatial_mllm_ros.rooms.world.walk import make_walk

SIZE = (40, 26)
K = torch.tensor([[26.0, 27.0, 20.5, 11.5]])


def nearest_along(o, d, shape, taper):
    """All entries into one unit shape by brute force: every root of every face, kept if it lies on the shape."""
    best = np.full(d.shape[:-1], np.inf)

    def keep(t, valid):
        np.copyto(best, np.where(valid & (t > 0.04) & (t < best), t, best))

    with np.errstate(all="ignore"):
        if shape == Shape.BOX:
            for axis in range(3):
                for side in (-1, 1):
                    t = (side - o[axis]) / d[..., axis]
                    at = o + t[..., None] * d
                    others = [i for i in range(3) if i != axis]
                    keep(t, (np.abs(at[..., others]) <= 1).all(-1))
            return best
        slope = 0.0 if shape == Shape.ELLIPSOID else -taper / 2
        base = 1.0 if shape == Shape.ELLIPSOID else 1 - abs(taper) / 2
        sign = 1.0 if shape == Shape.ELLIPSOID else -slope * slope
        shift = 0.0 if shape == Shape.ELLIPSOID else base * slope
        a = d[..., 0] ** 2 + d[..., 1] ** 2 + sign * d[..., 2] ** 2
        b = 2 * (o[0] * d[..., 0] + o[1] * d[..., 1] + sign * o[2] * d[..., 2] - shift * d[..., 2])
        c = o[0] ** 2 + o[1] ** 2 + sign * o[2] ** 2 - 2 * shift * o[2] - base**2
        for side in (-1, 1):
            t = (-b + side * np.sqrt(b * b - 4 * a * c)) / (2 * a)
            z = o[2] + t * d[..., 2]
            keep(t, (np.abs(z) <= 1) & (base + slope * z >= 0))
        if shape == Shape.FRUSTUM:
            for side in (-1, 1):
                t = (side - o[2]) / d[..., 2]
                at = o[:2] + t[..., None] * d[..., :2]
                keep(t, (at**2).sum(-1) <= (base + slope * side) ** 2)
    return best


def brute_force(world, pose):
    """Depth and ids from every part of the world at every pixel, in float64, without any culling."""
    fx, fy, cx, cy = K[0].tolist()
    v, u = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u, float)], -1) @ pose[:3, :3].T
    depth, ids = np.full(u.shape, np.inf), np.zeros(u.shape, int)
    table = world.table.astype(float)
    for i, shape in enumerate(world.shapes):
        matrix = table[ROW_MATRIX : ROW_MATRIX + 9, i].reshape(3, 3)
        origin = matrix @ (pose[:3, 3] - table[ROW_CENTRE : ROW_CENTRE + 3, i])
        t = nearest_along(origin, rays @ matrix.T, shape, table[ROW_TAPER, i])
        nearer = t < depth - 1e-7
        depth, ids = np.where(nearer, t, depth), np.where(nearer, int(table[ROW_INSTANCE, i]), ids)
    return depth, ids


def rendered(worlds, index, poses, **options):
    poses = torch.from_numpy(np.asarray(poses))
    return render(pack_worlds(worlds), torch.tensor(index), poses, K.expand(len(index), 4), SIZE, **options)


def test_depth_and_ids_are_those_of_brute_force_over_all_parts(worlds):
    poses, index = [], []
    for w, world in enumerate(worlds):
        walk = make_walk(world)
        poses += list(walk.poses(np.linspace(0, walk.duration_s, 7)))
        index += [w] * 7
    out = rendered(worlds, index, poses)
    wrong_depth = wrong_id = windows = 0
    for f, (w, pose) in enumerate(zip(index, poses, strict=True)):
        depth, ids = brute_force(worlds[w], pose)
        ours = out.depth_m[f].numpy()
        windows += np.isinf(depth).sum()
        wrong_depth += (np.isinf(depth) != np.isnan(ours)).sum()
        both = np.isfinite(depth) & np.isfinite(ours)
        wrong_depth += (np.abs(ours - depth)[both] > 1e-3 * depth[both] + 1e-3).sum()
        wrong_id += (out.instance[f].numpy() != ids).sum()
    total = len(poses) * SIZE[0] * SIZE[1]
    assert windows > 20
    # Rays that graze an edge are decided by rounding, and one plank on another is nearer by nothing.
    assert wrong_depth < 2e-3 * total
    assert wrong_id < 2e-3 * total


def test_a_frame_does_not_depend_on_its_neighbours_nor_on_threads(worlds):
    walks = [make_walk(world) for world in worlds]
    poses = [walk.poses(np.array([0.3 * walk.duration_s]))[0] for walk in walks]
    together = rendered(worlds, [0, 1, 2] * 40, poses * 40, workers=3)
    for w, world in enumerate(worlds):
        alone = rendered([world], [0], [poses[w]])
        assert torch.equal(alone.instance[0], together.instance[w + 60])
        assert torch.equal(alone.depth_m[0].nan_to_num(), together.depth_m[w + 60].nan_to_num())
        assert torch.equal(alone.rgb[0], together.rgb[w])


def test_what_one_frame_sees_another_sees_at_the_depth_that_geometry_says(worlds):
    walk = make_walk(worlds[1])
    poses = walk.poses(np.linspace(0.2, 0.5, 5) * walk.duration_s)
    out = rendered([worlds[1]], [0] * 5, poses)
    fx, fy, cx, cy = K[0].tolist()
    v, u = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u, float)], -1)
    checked = nearer = 0
    for f in range(5):
        points = (rays * out.depth_m[f].numpy()[..., None]) @ poses[f][:3, :3].T + poses[f][:3, 3]
        for g in range(5):
            z = (points - poses[g][:3, 3]) @ poses[g][:3, :3]
            with np.errstate(invalid="ignore"):
                column = np.rint(z[..., 0] / z[..., 2] * fx + cx)
                row = np.rint(z[..., 1] / z[..., 2] * fy + cy)
                seen = (z[..., 2] > 0.1) & (column >= 0) & (column < SIZE[0]) & (row >= 0) & (row < SIZE[1])
            there = out.depth_m[g].numpy()[row[seen].astype(int), column[seen].astype(int)]
            nearer += (there <= z[..., 2][seen] * 1.08 + 0.08).sum()  # what hides a point is nearer
            checked += seen.sum()
    assert checked > 4000
    assert nearer > 0.96 * checked


def test_images_are_lit_textured_and_full_of_things(clips):
    for clip in clips:
        assert clip.rgb.float().std() > 20
        assert 20 < clip.rgb.float().mean() < 235
        assert (clip.instance > 0).float().mean() > 0.05


def test_a_lamp_shines_by_itself(worlds):
    glowing = np.flatnonzero(worlds[0].table[ROW_GLOW] == 1.0)
    assert len(glowing) >= 1
    assert (worlds[0].table[ROW_INSTANCE][glowing[0]]) == 0  # the lamp of the ceiling is part of the building


def test_wrong_shapes_are_refused(worlds):
    packed = pack_worlds(worlds[:1])
    with pytest.raises(ConfigurationError, match="scene_from_cam"):
        render(packed, torch.tensor([0, 0]), torch.eye(4)[None], K.expand(2, 4), SIZE)
    with pytest.raises(ConfigurationError, match="0x26"):
        render(packed, torch.tensor([0]), torch.eye(4)[None], K, (0, 26))
    with pytest.raises(ConfigurationError, match="at least one"):
        pack_worlds([])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_sees_what_the_cpu_sees(worlds):
    walk = make_walk(worlds[1])
    poses = torch.from_numpy(walk.poses(np.linspace(0, walk.duration_s, 9)))
    packed, index = pack_worlds(worlds), torch.ones(9, dtype=torch.int64)
    here = render(packed, index, poses, K.expand(9, 4), SIZE)
    there = render(packed.to("cuda"), index, poses, K.expand(9, 4), SIZE)
    assert (here.instance != there.instance.cpu()).float().mean() < 2e-3
    assert (
        torch.allclose(here.depth_m.nan_to_num(), there.depth_m.cpu().nan_to_num(), atol=1e-3)
        or ((here.depth_m.nan_to_num() - there.depth_m.cpu().nan_to_num()).abs() > 1e-3).float().mean() < 2e-3
    )
