"""The shell of a world: floors, ceilings, walls with holes, trims, window frames and ceiling lights as parts."""

from __future__ import annotations

from spatial_mllm_ros.rooms.world.floor_plan import FloorPlan, Opening
from spatial_mllm_ros.rooms.world.kit import Kit, block, shade, tube
from spatial_mllm_ros.rooms.world.parts import Color, Part, Texture

_SLAB_M = 0.1
_FRAME_M = 0.07


def shell_of(k: Kit, plan: FloorPlan) -> tuple[list[tuple[Part, int]], list[tuple[Part, int, int]]]:
    """Draws the surfaces of ``plan``, in the scene's frame.

    Returns:
        (part, cell) for everything that is not an object, and (part, cell, index of the opening) for window frames.
    """
    parts: list[tuple[Part, int]] = []
    styles: dict[int, tuple[Color, Texture, Color, Texture, float, Color, float]] = {}
    for cell, (x0, y0, x1, y1) in enumerate(plan.cells):
        room = plan.room_of_cell[cell]
        if room not in styles:
            styles[room] = _style(k)
        wall, wall_texture, floor, floor_texture, floor_tile, ceiling, wall_tile = styles[room]
        x, y, size = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0, y1 - y0, _SLAB_M)
        parts.append((block(x, y, -_SLAB_M, size, floor, floor_texture, tile_m=floor_tile), cell))
        parts.append((block(x, y, plan.ceiling_m, size, ceiling), cell))
        parts.append((tube(x, y, plan.ceiling_m - 0.06, 0.42, 0.06, (1.0, 0.97, 0.9), taper=-0.2, glow=1.0), cell))
        walls = [block(*at, size_m, wall, wall_texture, tile_m=wall_tile) for at, size_m in _walls(plan, cell)]
        parts += [(part, cell) for part in walls]
    trim = k.white() if k.chance(0.6) else shade(k.wood(), 0.7)
    for opening in plan.openings:
        if opening.kind == "door":
            parts += [(part, cell) for cell in opening.cells for part in _trim(plan, opening, cell, trim)]
    frames = []
    for index, opening in enumerate(plan.openings):
        if opening.kind == "window":
            cell = max(opening.cells)
            frames += [(part, cell, index) for part in _window_frame(plan, opening, trim)]
    return parts, frames


def _style(k: Kit) -> tuple[Color, Texture, Color, Texture, float, Color, float]:
    """Wall colour and texture, floor colour, texture and tile, ceiling colour, wall tile."""
    wall = k.hsv((0.0, 1.0), (0.02, 0.13), (0.6, 0.93))
    wall_texture = k.pick(
        Texture.PLAIN, Texture.PLAIN, Texture.STRIPES, Texture.DOTS, Texture.BRICKS, Texture.TILES, Texture.SPECKLE
    )
    texture = k.pick(Texture.PLANKS, Texture.PLANKS, Texture.TILES, Texture.CHECKS, Texture.SPECKLE, Texture.WEAVE)
    floor = (
        k.hsv((0.055, 0.105), (0.15, 0.35), (0.28, 0.78))
        if texture is Texture.PLANKS
        else k.hsv((0.0, 1.0), (0.03, 0.2), (0.35, 0.8))
    )
    return wall, wall_texture, floor, texture, k.u(0.6, 1.6), k.white(), k.u(0.6, 1.4)  # type: ignore[return-value]


def _walls(plan: FloorPlan, cell: int) -> list[tuple[tuple[float, float, float], tuple[float, float, float]]]:
    """Boxes (bottom centre, size) of the cell's halves of its walls, without the openings."""
    x0, y0, x1, y1 = plan.cells[cell]
    half, top = plan.wall_m / 2, plan.ceiling_m
    boxes = []
    for axis, at, inner, low, high in (
        (0, x0, x0 + half / 2, y0, y1),
        (0, x1, x1 - half / 2, y0, y1),
        (1, y0, y0 + half / 2, x0, x1),
        (1, y1, y1 - half / 2, x0, x1),
    ):
        holes = sorted(
            (o.span_m, o.height_m)
            for o in plan.openings
            if o.axis == axis and abs(o.position_m - at) < 1e-9 and cell in o.cells
        )
        pieces, start = [], low
        for (hole_low, hole_high), (sill, head) in holes:
            pieces.append((start, hole_low, 0.0, top))
            pieces.append((hole_low, hole_high, 0.0, sill))
            pieces.append((hole_low, hole_high, head, top))
            start = hole_high
        pieces.append((start, high, 0.0, top))
        for a, b, bottom, upper in pieces:
            if b - a > 1e-6 and upper - bottom > 1e-6:
                middle, length, rise = (a + b) / 2, b - a, upper - bottom
                if axis == 0:
                    boxes.append(((inner, middle, bottom), (half, length, rise)))
                else:
                    boxes.append(((middle, inner, bottom), (length, half, rise)))
    return boxes


def _trim(plan: FloorPlan, opening: Opening, cell: int, color: Color) -> list[Part]:
    """Casing around a doorway on one cell's side: two posts and a lintel, 1.5 cm proud of the wall."""
    side = -1 if cell == opening.cells[0] else 1
    at = opening.position_m + side * (plan.wall_m / 2 + 0.0075)
    (low, high), head = opening.span_m, opening.height_m[1]
    pieces = [(low - _FRAME_M / 2, 0.0, _FRAME_M, head), (high + _FRAME_M / 2, 0.0, _FRAME_M, head)]
    pieces.append(((low + high) / 2, head, high - low + 2 * _FRAME_M, _FRAME_M))
    return [_in_wall(opening.axis, at, along, z, length, 0.015, rise, color) for along, z, length, rise in pieces]


def _window_frame(plan: FloorPlan, opening: Opening, color: Color) -> list[Part]:
    """A frame along the edge of the opening, cross bars, and a sill; flush with the wall's inner face."""
    inward = 1 if opening.cells[0] == -1 else -1
    depth = plan.wall_m / 2
    at = opening.position_m + inward * depth / 2
    (low, high), (sill, head) = opening.span_m, opening.height_m
    edge, middle, rise = 0.05, (low + high) / 2, head - sill
    pieces = [
        (low + edge / 2, sill, edge, rise, depth, at),
        (high - edge / 2, sill, edge, rise, depth, at),
        (middle, sill, high - low, edge, depth, at),
        (middle, head - edge, high - low, edge, depth, at),
        (middle, sill, 0.04, rise, 0.03, at),
        (middle, sill + 0.62 * rise, high - low, 0.035, 0.03, at),
        (middle, sill - 0.04, high - low + 0.12, 0.04, 0.14, opening.position_m + inward * (depth + 0.07)),
    ]
    return [
        _in_wall(opening.axis, where, along, z, length, thick, height, color)
        for along, z, length, height, thick, where in pieces
    ]


def _in_wall(
    axis: int, at: float, along: float, z: float, length: float, thick: float, rise: float, color: Color
) -> Part:
    if axis == 0:
        return block(at, along, z, (thick, length, rise), color)
    return block(along, at, z, (length, thick, rise), color)
