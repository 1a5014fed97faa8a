"""Colour of the visible points: two-colour textures with mip levels, a lamp per cell, soft shadows on the floor."""

from __future__ import annotations

import torch

from spatial_mllm_ros.rooms.renderer.culling import Cameras
from spatial_mllm_ros.rooms.renderer.intersection import frustum_radius
from spatial_mllm_ros.rooms.renderer.packing import PackedWorlds
from spatial_mllm_ros.rooms.renderer.textures import LEVELS, TILE_PX
from spatial_mllm_ros.rooms.world.parts import (
    ROW_CELL,
    ROW_CENTRE,
    ROW_COLOR,
    ROW_COLOR2,
    ROW_GLOW,
    ROW_HALF,
    ROW_LIGHT,
    ROW_MATRIX,
    ROW_OFFSET,
    ROW_TAPER,
    ROW_TEXELS,
    ROW_TEXTURE,
    SHADED,
    Shape,
)
from spatial_mllm_ros.rooms.world.world import SHADOW_CELLS


def shade_pixels(
    packed: PackedWorlds,
    cameras: Cameras,
    part: torch.Tensor,
    pair: torch.Tensor,
    depth: torch.Tensor,
    rgb: torch.Tensor,
) -> None:
    """Fills ``rgb`` float32 [F, H, W, 3].

    Args:
        part: int64 [N], the part of each pair. pair: int64 [F H W], the winning pair, larger than N for none.
        depth: float32 [F H W], infinite for none.
    """
    frames, height, width = rgb.shape[:3]
    rays = _rays(cameras)
    sky = depth == float("inf")
    has_sky = bool(sky.any())
    if len(part) == 0:
        rgb.copy_(_outside(packed, cameras, rays[2]).view_as(rgb))
        return
    if has_sky:
        depth, pair = torch.where(sky, 1.0, depth), torch.where(sky, 0, pair)
    t = depth.view(frames, -1)
    eye = cameras.eye_m.T[:, :, None]
    point = [(eye[i] + t * rays[i]).reshape(-1) for i in range(3)]
    which = part.index_select(0, pair)
    row = packed.table[:SHADED].index_select(1, which)
    away = [point[i] - row[ROW_CENTRE + i] for i in range(3)]
    unit = [
        row[ROW_MATRIX + 3 * i] * away[0]
        + row[ROW_MATRIX + 3 * i + 1] * away[1]
        + row[ROW_MATRIX + 3 * i + 2] * away[2]
        for i in range(3)
    ]
    normal, axis = _normals(packed, which, row, unit)
    # The texture of a face across one axis lies along the other two axes.
    metres = [unit[i] * row[ROW_HALF + i] for i in range(3)]
    on_x, on_z = axis == 0, axis == 2
    across = torch.where(on_x, metres[1], metres[0]) * row[ROW_TEXELS] + row[ROW_OFFSET]
    up = torch.where(on_z, metres[1], metres[2]) * row[ROW_TEXELS] + row[ROW_OFFSET + 1]
    focal = cameras.k[:, 0].repeat_interleave(height * width)
    texels = depth * row[ROW_TEXELS] * (TILE_PX * 1.4) / focal
    level = (texels.clamp(min=1.0).view(torch.int32) >> 23).sub_(127).clamp_(max=LEVELS - 1)  # floor of log2
    iu = (across * TILE_PX + 65536.0).to(torch.int32) & (TILE_PX - 1)
    iv = (up * TILE_PX + 65536.0).to(torch.int32) & (TILE_PX - 1)
    index = row[ROW_TEXTURE].to(torch.int32) + ((level * TILE_PX + iv) * TILE_PX + iu)
    tone = packed.tones.index_select(0, index)
    light = _light(packed, cameras, which, row, normal, point, height * width)
    for i in range(3):
        color = torch.addcmul(row[ROW_COLOR + i], row[ROW_COLOR2 + i], tone) * light[i]
        rgb[..., i] = color.view(frames, height, width)
    if has_sky:
        where = sky.nonzero()[:, 0]
        rgb.view(-1, 3)[where] = _outside(packed, cameras, rays[2])[where]


def _rays(cameras: Cameras) -> list[torch.Tensor]:
    """Directions in the scene, of length 1 along the optical axis: x, y, z, each float32 [F, H W]."""
    width, height = cameras.size_px
    device = cameras.k.device
    fx, fy, cx, cy = cameras.k.T[:, :, None, None]
    x = (torch.arange(width, device=device)[None, None] - cx) / fx
    y = (torch.arange(height, device=device)[None, :, None] - cy) / fy
    r = cameras.rotation[:, :, :, None, None]
    return [(r[:, i, 0] * x + (r[:, i, 1] * y + r[:, i, 2])).flatten(1) for i in range(3)]


def _normals(
    packed: PackedWorlds, which: torch.Tensor, row: torch.Tensor, unit: list[torch.Tensor]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Outward normals in the scene (x, y, z), and the axis of the part that the face is perpendicular to (0, 1, 2)."""
    ax, ay, az = (value.abs() for value in unit)
    axis = torch.where(ay > ax, 1, 0)
    axis = torch.where(az > torch.maximum(ax, ay), 2, axis)
    is_x, is_y = axis == 0, axis == 1
    along = torch.where(is_x, unit[0], torch.where(is_y, unit[1], unit[2]))
    # An axis of a part is its row of the matrix, made as long as 1 by the half length.
    scale = torch.sign(along) * torch.where(
        is_x, row[ROW_HALF], torch.where(is_y, row[ROW_HALF + 1], row[ROW_HALF + 2])
    )
    normal = [
        scale
        * torch.where(is_x, row[ROW_MATRIX + i], torch.where(is_y, row[ROW_MATRIX + 3 + i], row[ROW_MATRIX + 6 + i]))
        for i in range(3)
    ]
    shape = packed.shapes.index_select(0, which)
    curved = (shape != Shape.BOX).nonzero()[:, 0]
    if len(curved):
        part = row[: ROW_MATRIX + 9].index_select(1, curved)
        x, y, z = (value[curved] for value in unit)
        is_ball = shape[curved] == Shape.ELLIPSOID
        taper = packed.table[ROW_TAPER].index_select(0, which[curved])
        radius = frustum_radius(taper, z)
        # On the side x^2 + y^2 = r(z)^2; the gradient's z part is -r dr/dz = r taper / 2.
        on_cap = ~is_ball & (z.abs() > 0.999) & (x * x + y * y < radius * radius * 0.998)
        nx, ny = torch.where(on_cap, 0.0, x), torch.where(on_cap, 0.0, y)
        nz = torch.where(is_ball, z, torch.where(on_cap, torch.sign(z), radius * taper / 2))
        grad = [
            part[ROW_MATRIX + i] * nx + part[ROW_MATRIX + 3 + i] * ny + part[ROW_MATRIX + 6 + i] * nz for i in range(3)
        ]
        scale = (grad[0] * grad[0] + grad[1] * grad[1] + grad[2] * grad[2]).clamp(min=1e-12).rsqrt()
        for i in range(3):
            normal[i][curved] = grad[i] * scale
    return normal, axis


def _light(
    packed: PackedWorlds,
    cameras: Cameras,
    which: torch.Tensor,
    row: torch.Tensor,
    normal: list[torch.Tensor],
    point: list[torch.Tensor],
    pixels: int,
) -> list[torch.Tensor]:
    """Brightness per channel: indirect light from above, the cell's warm lamp, soft shadows on the floor, glow."""
    to_lamp = [row[ROW_LIGHT + i] - point[i] for i in range(3)]
    distance2 = to_lamp[0] * to_lamp[0] + to_lamp[1] * to_lamp[1] + to_lamp[2] * to_lamp[2]
    facing = normal[0] * to_lamp[0] + normal[1] * to_lamp[1] + normal[2] * to_lamp[2]
    lamp = (facing * distance2.rsqrt()).clamp_(min=0) * row[ROW_LIGHT + 3] / (0.9 + 0.09 * distance2)
    ambient = packed.light[cameras.world, 0].repeat_interleave(pixels)
    soft = ambient * (0.95 + 0.25 * normal[2] + 0.13 * normal[0] - 0.07 * normal[1])
    floor = ((point[2] < 0.02) & (normal[2] > 0.9)).nonzero()[:, 0]
    if len(floor):
        cell = packed.table[ROW_CELL].index_select(0, which[floor]).to(torch.int64)
        x0, y0, x1, y1 = packed.floor_m[cell].T
        n = SHADOW_CELLS
        i = ((point[0][floor] - x0) / (x1 - x0) * n).clamp(0, n - 1).to(torch.int64)
        j = ((point[1][floor] - y0) / (y1 - y0) * n).clamp(0, n - 1).to(torch.int64)
        dark = packed.shadows.index_select(0, (cell * n + j) * n + i)
        lamp[floor] *= dark
        soft[floor] *= dark
    glow = row[ROW_GLOW]
    rest = 1.0 - glow
    return [(soft * cool + lamp * warm) * rest + glow for cool, warm in ((0.97, 1.05), (1.0, 1.0), (1.06, 0.9))]


def _outside(packed: PackedWorlds, cameras: Cameras, up: torch.Tensor) -> torch.Tensor:
    """The outside seen through windows: meadow below the horizon, sky above; float32 [F H W, 3]."""
    brightness = packed.light[cameras.world, 1][:, None]
    height = (up * 2.0).clamp(-1, 1)
    above = (up > 0).float()
    fade = height.abs()
    channels = [
        brightness * (above * (a - b * fade) + (1 - above) * (c - d * fade))
        for a, b, c, d in ((0.85, 0.4, 0.42, 0.18), (0.9, 0.25, 0.5, 0.15), (0.95, 0.05, 0.3, 0.16))
    ]
    return torch.stack(channels, -1).reshape(-1, 3)
