"""Floor plans: a rectangle that is cut into cells, with doorways and windows; some cells are joined into one room.

Cells tile the plane. The inside of a cell is its rectangle without half a wall on each side. Every cell owns its half
of each wall, so the cell that the camera is in tells which surfaces the camera can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely

from spatial_mllm_ros.rooms.world.kit import Kit

Rect = tuple[float, float, float, float]  #: x low, y low, x high, y high, metres


@dataclass(frozen=True)
class Opening:
    """A hole through a wall.

    Attributes:
        axis: 0 for a wall at x = ``position_m``, 1 for a wall at y = ``position_m``.
        span_m: start and end along the wall.
        height_m: lower and upper edge.
        cells: the cells on the lower and on the higher side; -1 is the outside.
    """

    axis: int
    position_m: float
    span_m: tuple[float, float]
    height_m: tuple[float, float]
    cells: tuple[int, int]
    kind: str  #: "door" (a doorway), "wide" (the cells are one room) or "window"

    @property
    def middle_m(self) -> np.ndarray:
        """Centre of the opening on the floor plan, float64 [2]."""
        along = sum(self.span_m) / 2
        return np.array((self.position_m, along) if self.axis == 0 else (along, self.position_m))


@dataclass(frozen=True)
class FloorPlan:
    """Cells (rectangles that tile the plan), openings, and which room each cell belongs to."""

    cells: tuple[Rect, ...]
    openings: tuple[Opening, ...]
    room_of_cell: tuple[int, ...]
    wall_m: float
    ceiling_m: float
    polygons: tuple[np.ndarray, ...] = field(repr=False)  #: per room, float64 [K, 2], counter-clockwise

    def inside(self, cell: int) -> Rect:
        """The rectangle of a cell without its halves of the walls."""
        x0, y0, x1, y1 = self.cells[cell]
        half = self.wall_m / 2
        return x0 + half, y0 + half, x1 - half, y1 - half


def make_plan(k: Kit) -> FloorPlan:
    """Draws a plan of one to five cells, 7 to 125 square metres."""
    count = (1, 1, 2, 2, 2, 3, 3, 3, 4, 5)[k.n(0, 9)]
    wall, ceiling = k.u(0.1, 0.26), k.u(2.25, 3.2)
    area = sum(k.u(6.0, 25.0) for _ in range(count))
    aspect = k.u(0.65, 1.55)
    width, depth = max(2.7, (area * aspect) ** 0.5), max(2.7, (area / aspect) ** 0.5)
    cells = _cut(k, (0.0, 0.0, width, depth), count)
    joints, rooms = _joints(k, cells, wall, ceiling)
    windows = _windows(k, cells, (width, depth), wall, ceiling)
    polygons = []
    half = wall / 2
    for room in range(max(rooms) + 1):
        mine = [i for i, r in enumerate(rooms) if r == room]
        rects = [(c[0] + half, c[1] + half, c[2] - half, c[3] - half) for c in (cells[i] for i in mine)]
        for joint in joints:
            if joint.kind == "wide" and joint.cells[0] in mine:
                low, high, at = *joint.span_m, joint.position_m
                strip = (at - half, low, at + half, high) if joint.axis == 0 else (low, at - half, high, at + half)
                rects.append(strip)
        polygons.append(union_outline(rects))
    return FloorPlan(tuple(cells), (*joints, *windows), tuple(rooms), wall, ceiling, tuple(polygons))


def _cut(k: Kit, whole: Rect, count: int) -> list[Rect]:
    cells, shortest = [whole], 2.4
    while len(cells) < count:
        cells.sort(key=lambda c: (c[2] - c[0]) * (c[3] - c[1]))
        x0, y0, x1, y1 = cells.pop()
        if max(x1 - x0, y1 - y0) < 2 * shortest:
            cells.append((x0, y0, x1, y1))
            break
        share = k.u(0.36, 0.64)
        if x1 - x0 > y1 - y0:
            cut = min(max(x0 + share * (x1 - x0), x0 + shortest), x1 - shortest)
            cells += [(x0, y0, cut, y1), (cut, y0, x1, y1)]
        else:
            cut = min(max(y0 + share * (y1 - y0), y0 + shortest), y1 - shortest)
            cells += [(x0, y0, x1, cut), (x0, cut, x1, y1)]
    return cells


def _shared_wall(a: Rect, b: Rect) -> tuple[int, float, float, float] | None:
    """Axis, position and span of the wall between two cells, where ``a`` is on the lower side."""
    if abs(a[2] - b[0]) < 1e-9 and min(a[3], b[3]) > max(a[1], b[1]):
        return 0, a[2], max(a[1], b[1]), min(a[3], b[3])
    if abs(a[3] - b[1]) < 1e-9 and min(a[2], b[2]) > max(a[0], b[0]):
        return 1, a[3], max(a[0], b[0]), min(a[2], b[2])
    return None


def _joints(k: Kit, cells: Sequence[Rect], wall: float, ceiling: float) -> tuple[list[Opening], list[int]]:
    """Openings along a random spanning tree of the cells, and sometimes one more doorway; the room of each cell."""
    edges = []
    for i, a in enumerate(cells):
        for j, b in enumerate(cells):
            shared = _shared_wall(a, b)
            if shared and shared[3] - shared[2] > 1.25 + wall:
                edges.append((k.u(0, 1), i, j, shared))
    edges.sort()
    group, room, joints, extra = list(range(len(cells))), list(range(len(cells))), [], k.chance(0.3)
    for _, i, j, (axis, at, low, high) in edges:
        tree = group[i] != group[j]
        if not tree and not extra:
            continue
        extra = extra and tree
        if tree and k.chance(0.25):
            joints.append(Opening(axis, at, (low + wall / 2, high - wall / 2), (0.0, ceiling), (i, j), "wide"))
            room = [room[i] if r == room[j] else r for r in room]
        else:
            width = k.u(0.75, 1.05)
            start = k.u(low + wall / 2 + 0.12, high - wall / 2 - 0.12 - width)
            top = min(k.u(1.95, 2.15), ceiling - 0.1)
            joints.append(Opening(axis, at, (start, start + width), (0.0, top), (i, j), "door"))
        group = [group[i] if g == group[j] else g for g in group]
    order = list(dict.fromkeys(room))
    return joints, [order.index(r) for r in room]


def _windows(k: Kit, cells: Sequence[Rect], whole: tuple[float, float], wall: float, ceiling: float) -> list[Opening]:
    windows = []
    for index, (x0, y0, x1, y1) in enumerate(cells):
        sides = [(0, x0, y0, y1, x0 < 1e-9, 1), (0, x1, y0, y1, x1 > whole[0] - 1e-9, 0)]
        sides += [(1, y0, x0, x1, y0 < 1e-9, 1), (1, y1, x0, x1, y1 > whole[1] - 1e-9, 0)]
        for axis, at, low, high, outer, side in sides:
            if not outer or not k.chance(0.42):
                continue
            width = k.u(0.6, min(2.0, high - low - wall - 0.6))
            start = k.u(low + wall / 2 + 0.25, high - wall / 2 - 0.25 - width)
            sill = k.u(0.6, 1.05)
            top = min(sill + k.u(0.7, 1.4), ceiling - 0.12)
            owners = (-1, index) if side else (index, -1)
            windows.append(Opening(axis, at, (start, start + width), (sill, top), owners, "window"))
    return windows


def union_outline(rects: Sequence[Rect]) -> np.ndarray:
    """Outline of overlapping or touching axis-aligned rectangles without holes; float64 [K, 2], counter-clockwise.

    It begins at the corner with the lowest x, of several at the one with the lowest y. All coordinates are those of the
    rectangles, bit by bit.
    """
    union = shapely.union_all(shapely.box(*np.array(rects).T)).simplify(0)  # 0: without corners on straight edges
    corners = shapely.get_coordinates(shapely.orient_polygons(union))[:-1]
    first = int(np.lexsort((corners[:, 1], corners[:, 0]))[0])
    return np.roll(corners, -first, axis=0)
