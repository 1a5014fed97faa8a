"""The renderer: makes colour, depth and instance ids from worlds and cameras, with eager torch on CPU or GPU.

For a chunk of frames, culling gives rectangles, every rectangle becomes a list of pixels, and every (part, pixel) pair
is intersected exactly. A scattered minimum over (depth, pair), packed into 64 bits, finds the nearest pair of each
pixel, and only these are shaded. So the work is proportional to what may be seen, not to parts times pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.rooms.renderer.culling import Cameras, Candidates, cell_views, find_candidates
from spatial_mllm_ros.rooms.renderer.intersection import hit_box, hit_ellipsoid, hit_frustum
from spatial_mllm_ros.rooms.renderer.packing import PackedWorlds
from spatial_mllm_ros.rooms.renderer.shading import shade_pixels
from spatial_mllm_ros.rooms.world.parts import ROW_CENTRE, ROW_INSTANCE, ROW_MATRIX, ROW_TAPER, Shape

#: Pixels that are rendered at a time on a CPU: few enough for the lists of pairs to stay in its caches.
_CPU_CHUNK_PX = 160_000
_GPU_CHUNK_PX = 16_000_000
_NOTHING = (0x7F800000 << 32) | 0xFFFFFFFF  # infinite depth, no pair


@dataclass(frozen=True, eq=False)
class Rendered:
    """What F cameras see.

    Attributes:
        rgb: float32 [F, H, W, 3], 0..1, and above 1 where it is brighter than white.
        depth_m: float32 [F, H, W], along the optical axis; NaN where a window shows the outside.
        instance: int16 [F, H, W]: id of the object, 0 for the building and the outside.
    """

    rgb: torch.Tensor
    depth_m: torch.Tensor
    instance: torch.Tensor


@torch.no_grad()
def render(
    packed: PackedWorlds,
    world: torch.Tensor,
    scene_from_cam: torch.Tensor,
    k: torch.Tensor,
    size_px: tuple[int, int],
    *,
    workers: int = 1,
) -> Rendered:
    """Renders F frames.

    Args:
        world: int64 [F]: which world of the pack each frame shows.
        scene_from_cam: float [F, 4, 4]; the camera must be inside a room and not inside a thing.
        k: float [F, 4]: fx, fy, cx, cy in pixels of an image of ``size_px``; pixel centres at whole numbers.
        size_px: width and height.
        workers: threads, each rendering whole chunks of frames (CPU).

    Raises:
        ConfigurationError: the shapes do not match, or a size is not above 0.
    """
    count, (width, height) = len(world), size_px
    if scene_from_cam.shape != (count, 4, 4) or k.shape != (count, 4) or min(width, height) < 1:
        raise ConfigurationError(
            f"render: {count} frames need scene_from_cam [{count}, 4, 4] and k [{count}, 4], got "
            f"{tuple(scene_from_cam.shape)} and {tuple(k.shape)}; the image is {width}x{height}."
        )
    device = packed.table.device
    pose = scene_from_cam.to(device, torch.float32)
    cameras = Cameras(world.to(device), pose[:, :3, :3], pose[:, :3, 3], k.to(device, torch.float32), size_px)
    views = cell_views(packed, cameras)
    chunk = max(1, (_CPU_CHUNK_PX if device.type == "cpu" else _GPU_CHUNK_PX) // (width * height))
    out = Rendered(
        torch.empty((count, height, width, 3), device=device),
        torch.empty((count, height, width), device=device),
        torch.empty((count, height, width), dtype=torch.int16, device=device),
    )

    def one(start: int) -> None:
        part = slice(start, min(start + chunk, count))
        _render_chunk(
            packed,
            Cameras(cameras.world[part], cameras.rotation[part], cameras.eye_m[part], cameras.k[part], size_px),
            views[part],
            Rendered(out.rgb[part], out.depth_m[part], out.instance[part]),
        )

    starts = range(0, count, chunk)
    if workers > 1 and device.type == "cpu" and len(starts) > 1:
        with ThreadPoolExecutor(workers, thread_name_prefix="render") as pool:
            list(pool.map(torch.no_grad()(one), starts))
    else:
        for start in starts:
            one(start)
    return out


def _render_chunk(packed: PackedWorlds, cameras: Cameras, views: torch.Tensor, out: Rendered) -> None:
    width, height = cameras.size_px
    found = find_candidates(packed, cameras, views)
    shapes = packed.shapes[found.part]
    nearest = torch.full((len(cameras.world) * height * width,), _NOTHING, dtype=torch.int64, device=shapes.device)
    rows = packed.table.index_select(1, found.part)
    matrix = rows[ROW_MATRIX : ROW_MATRIX + 9].reshape(3, 3, -1)
    frames = found.frame
    # In the part's unit frame a ray is d = (columns of matrix . rotation) (x, y, 1), from o = matrix (eye - centre).
    turn = cameras.rotation.permute(1, 2, 0)[:, :, frames]
    ray = (matrix[:, :, None] * turn[None]).sum(1)
    origin = (matrix * (cameras.eye_m.T[:, frames] - rows[ROW_CENTRE : ROW_CENTRE + 3])[None]).sum(1)
    for shape in Shape:
        chosen = (shapes == shape).nonzero()[:, 0]
        if len(chosen):
            _scatter_nearest(shape, chosen, found, ray, origin, rows[ROW_TAPER], cameras, nearest)
    pair = nearest & 0xFFFFFFFF
    depth = (nearest >> 32).to(torch.int32).view(torch.float32)
    shade_pixels(packed, cameras, found.part, pair, depth, out.rgb)
    seen = depth < float("inf")
    out.depth_m.copy_(torch.where(seen, depth, float("nan")).view_as(out.depth_m))
    ids = rows[ROW_INSTANCE].to(torch.int16)
    ids = torch.cat([ids, ids.new_zeros(1)])
    out.instance.copy_(ids[torch.where(seen, pair, len(ids) - 1)].view_as(out.instance))


def _scatter_nearest(
    shape: Shape,
    chosen: torch.Tensor,
    found: Candidates,
    ray: torch.Tensor,
    origin: torch.Tensor,
    taper: torch.Tensor,
    cameras: Cameras,
    nearest: torch.Tensor,
) -> None:
    """Intersects all pairs of one shape and keeps the nearest per pixel in ``nearest`` int64 [F H W], in place."""
    width, height = cameras.size_px
    u0, v0, u1, v1 = found.rect[:, chosen]
    frame = found.frame[chosen]
    # Lines of the rectangles first, then pixels of the lines: what is constant along a line is computed once.
    line, v = _ranges(v1 - v0, v0)
    pixel_start = (frame[line] * height + v) * width
    k = cameras.k.T[:, frame]
    step = ray[:, 0, chosen] / k[0]
    base = ray[:, 2, chosen] - step * k[2] - ray[:, 1, chosen] * (k[3] / k[1])
    rise = ray[:, 1, chosen] / k[1]
    lines = torch.cat([base[:, line] + rise[:, line] * v, step[:, line], origin[:, chosen][:, line]])
    of_line, u = _ranges((u1 - u0)[line], u0[line])
    values = lines.index_select(1, of_line)
    across = u.to(torch.float32)
    d = tuple(torch.addcmul(values[i], values[3 + i], across) for i in range(3))
    o = (values[6], values[7], values[8])
    if shape is Shape.BOX:
        depth = hit_box(o, d)  # type: ignore[arg-type]
    elif shape is Shape.ELLIPSOID:
        depth = hit_ellipsoid(o, d)  # type: ignore[arg-type]
    else:
        depth = hit_frustum(o, d, taper[chosen][line].index_select(0, of_line))  # type: ignore[arg-type]
    hit = (depth < float("inf")).nonzero()[:, 0]
    of_line = of_line[hit]
    key = (depth[hit].view(torch.int32).to(torch.int64) << 32) | chosen[line][of_line]
    nearest.scatter_reduce_(0, pixel_start[of_line] + u[hit], key, "amin")


def _ranges(lengths: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For ranges of ``lengths`` from ``starts``: for each element the number of its range, and its value."""
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    shift = starts - (torch.cumsum(lengths, 0) - lengths)
    return owner, torch.arange(len(owner), device=lengths.device) + shift.index_select(0, owner)
