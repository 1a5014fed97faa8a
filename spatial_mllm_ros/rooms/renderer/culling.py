"""Culling: which parts may be visible in which rectangle of which frame.

From inside a cell, other cells are visible only through openings, so the renderer searches for their parts only in the
opening's rectangle of the image (portal culling, Luebke and Georges 1995). It searches for a part in the rectangle
around the part's eight projected corners, clipped at a near plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spatial_mllm_ros.rooms.renderer.intersection import NEAR_M
from spatial_mllm_ros.rooms.renderer.packing import PackedWorlds
from spatial_mllm_ros.rooms.world.parts import ROW_AXES, ROW_CELL, ROW_CENTRE, ROW_HALF

_EDGES = ((0, 1), (1, 3), (3, 2), (2, 0), (4, 5), (5, 7), (7, 6), (6, 4), (0, 4), (1, 5), (2, 6), (3, 7))


@dataclass(frozen=True, eq=False)
class Cameras:
    """F cameras of a chunk of frames.

    Attributes:
        world: int64 [F]. rotation: float32 [F, 3, 3], scene from camera. eye_m: float32 [F, 3].
        k: float32 [F, 4]: fx, fy, cx, cy in pixels.
        size_px: width and height.
    """

    world: torch.Tensor
    rotation: torch.Tensor
    eye_m: torch.Tensor
    k: torch.Tensor
    size_px: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Candidates:
    """N pairs of a frame and a part that may be visible in it.

    Attributes:
        frame, part: int64 [N].
        rect: int64 [4, N], the rectangle u0, v0, u1, v1 in which the part may be visible.
    """

    frame: torch.Tensor
    part: torch.Tensor
    rect: torch.Tensor


def find_candidates(packed: PackedWorlds, cameras: Cameras, view: torch.Tensor) -> Candidates:
    """All pairs with a non-empty rectangle; ``view`` is what ``cell_views`` gives for these cameras."""
    cell = view.shape[2]
    first, last = packed.first_part[cameras.world], packed.first_part[cameras.world + 1]
    count = last - first
    frame = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    start = torch.cumsum(count, 0) - count
    part = torch.arange(len(frame), device=count.device) - start[frame] + first[frame]
    view_of = packed.table[ROW_CELL].long()[part] - packed.first_cell[cameras.world][frame] + frame * cell
    # A cheap test first: the cell is visible, and the part's sphere is in front of the camera and within its view.
    rows = packed.table.index_select(1, part)
    centre = rows[ROW_CENTRE : ROW_CENTRE + 3] - cameras.eye_m.T[:, frame]
    radius = rows[ROW_HALF : ROW_HALF + 3].norm(dim=0)
    turn = cameras.rotation.permute(1, 2, 0)[:, :, frame]  # [scene axis, camera axis, N]
    in_cam = (turn * centre[:, None]).sum(0)
    k = cameras.k.T[:, frame]
    reach_x = (cameras.size_px[0] / k[0]) * 0.75 + 0.2
    reach_y = (cameras.size_px[1] / k[1]) * 0.75 + 0.2
    z = in_cam[2]
    keep = (view[:, 2].reshape(-1)[view_of] > view[:, 0].reshape(-1)[view_of]) & (z + radius > NEAR_M)
    keep &= in_cam[0].abs() - reach_x * z.clamp(min=0) < radius * (1 + reach_x)
    keep &= in_cam[1].abs() - reach_y * z.clamp(min=0) < radius * (1 + reach_y)
    kept = keep.nonzero()[:, 0]
    frame, part, view_of = frame[kept], part[kept], view_of[kept]
    rows, in_cam, turn, k = rows[:, kept], in_cam[:, kept], turn[:, :, kept], k[:, kept]
    axes = rows[ROW_AXES : ROW_AXES + 9].reshape(3, 3, -1) * rows[ROW_HALF : ROW_HALF + 3][:, None]
    arms = (axes[:, :, None] * turn[None]).sum(1)  # [axis of the part, camera axis, N]
    corners = torch.stack(
        [in_cam + sx * arms[0] + sy * arms[1] + sz * arms[2] for sx in (-1, 1) for sy in (-1, 1) for sz in (-1, 1)], 0
    )
    bounds = _bounds(corners, k, _EDGES)
    limit = view.permute(1, 0, 2).reshape(4, -1)[:, view_of]
    low = torch.maximum(torch.floor(bounds[:2]), limit[:2])
    high = torch.minimum(torch.ceil(bounds[2:]) + 1, limit[2:])
    shown = ((high > low).all(0)).nonzero()[:, 0]
    rect = torch.cat([low[:, shown], high[:, shown]]).long()
    return Candidates(frame[shown], part[shown], rect)


def cell_views(packed: PackedWorlds, cameras: Cameras) -> torch.Tensor:
    """In which rectangle of the image each cell of the frame's world may be visible: float32 [F, 4, G], some empty.

    It consists of many small steps, which take as long for one frame as for a thousand.
    """
    cells = packed.cells_m[cameras.world]
    x, y = cameras.eye_m[:, None, 0], cameras.eye_m[:, None, 1]
    outside = (cells[..., 0] - x).clamp(min=0) + (x - cells[..., 2]).clamp(min=0)
    outside = outside + (cells[..., 1] - y).clamp(min=0) + (y - cells[..., 3]).clamp(min=0)
    home = outside.argmin(1)
    count = cells.shape[1]
    width, height = cameras.size_px
    full = torch.tensor([0.0, 0.0, width, height], device=cells.device)
    view = torch.tensor([1e6, 1e6, -1e6, -1e6], device=cells.device)[None, :, None].repeat(len(home), 1, count)
    view[torch.arange(len(home), device=home.device), :, home] = full
    portal = _portal_rects(packed, cameras)
    ends = packed.portal_cells[cameras.world]
    for _ in range(count - 1):
        for o in range(ends.shape[1]):
            for a, b in ((0, 1), (1, 0)):
                source, target = ends[:, o, a, None, None], ends[:, o, b, None, None]
                through = view.gather(2, source.expand(-1, 4, 1))[..., 0]
                low = torch.maximum(through[:, :2], portal[:, o, :2])
                high = torch.minimum(through[:, 2:], portal[:, o, 2:])
                open_ = ((high > low).all(1) & (source[:, 0, 0] != target[:, 0, 0]))[:, None]
                before = view.gather(2, target.expand(-1, 4, 1))[..., 0]
                low = torch.where(open_, torch.minimum(low, before[:, :2]), before[:, :2])
                high = torch.where(open_, torch.maximum(high, before[:, 2:]), before[:, 2:])
                view.scatter_(2, target.expand(-1, 4, 1), torch.cat([low, high], 1)[..., None])
    return view


def _portal_rects(packed: PackedWorlds, cameras: Cameras) -> torch.Tensor:
    """The rectangle of each opening in the image: float32 [F, O, 4]; the whole image for a camera in the opening."""
    corners = packed.portal_m[cameras.world] - cameras.eye_m[:, None, None]
    count, openings = corners.shape[:2]
    in_cam = torch.einsum("foci,fij->cjfo", corners, cameras.rotation).reshape(4, 3, -1)
    k = cameras.k.T[:, :, None].expand(-1, -1, openings).reshape(4, -1)
    bounds = _bounds(in_cam, k, ((0, 1), (1, 2), (2, 3), (3, 0))).T.reshape(count, openings, 4)
    bounds = torch.cat([torch.floor(bounds[..., :2]), torch.ceil(bounds[..., 2:]) + 1], -1)
    plane = packed.portal_plane[cameras.world]
    eye_x, eye_y = cameras.eye_m[:, None, 0], cameras.eye_m[:, None, 1]
    across = torch.where(plane[..., 0] == 0, eye_x, eye_y) - plane[..., 1]
    along = torch.where(plane[..., 0] == 0, eye_y, eye_x)
    inside = (across.abs() < 0.06) & (along > plane[..., 2]) & (along < plane[..., 3])
    whole = torch.tensor([0.0, 0.0, *cameras.size_px], device=bounds.device)
    return torch.where(inside[..., None], whole, bounds)


def _bounds(corners: torch.Tensor, k: torch.Tensor, edges: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Rectangle u0, v0, u1, v1 float32 [4, N] around projected corners float32 [C, 3, N], clipped at the near plane."""
    x, y, z = corners[:, 0], corners[:, 1], corners[:, 2]
    before = z > NEAR_M
    # A corner behind the near plane does not count; the points where its edges cross the plane count instead.
    safe = torch.where(before, z, torch.ones_like(z))
    u, v = x / safe, y / safe
    big = 1e5
    low_u = torch.where(before, u, big).amin(0)
    high_u = torch.where(before, u, -big).amax(0)
    low_v = torch.where(before, v, big).amin(0)
    high_v = torch.where(before, v, -big).amax(0)
    cut = (before.any(0) & ~before.all(0)).nonzero()[:, 0]
    if len(cut):
        part = corners[:, :, cut]
        a, b = part[[e[0] for e in edges]], part[[e[1] for e in edges]]
        passes = (a[:, 2] > NEAR_M) != (b[:, 2] > NEAR_M)
        share = (NEAR_M - a[:, 2]) / torch.where(passes, b[:, 2] - a[:, 2], torch.ones_like(a[:, 2]))
        at_u = (a[:, 0] + share * (b[:, 0] - a[:, 0])) / NEAR_M
        at_v = (a[:, 1] + share * (b[:, 1] - a[:, 1])) / NEAR_M
        low_u[cut] = torch.minimum(low_u[cut], torch.where(passes, at_u, big).amin(0))
        high_u[cut] = torch.maximum(high_u[cut], torch.where(passes, at_u, -big).amax(0))
        low_v[cut] = torch.minimum(low_v[cut], torch.where(passes, at_v, big).amin(0))
        high_v[cut] = torch.maximum(high_v[cut], torch.where(passes, at_v, -big).amax(0))
    fx, fy, cx, cy = k
    return torch.stack([low_u * fx + cx, low_v * fy + cy, high_u * fx + cx, high_v * fy + cy]).clamp(-1e6, 1e6)
