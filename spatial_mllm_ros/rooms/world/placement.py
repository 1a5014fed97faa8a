"""Furnishing: draws the things of a world and finds a free place for each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.rooms.world.catalog import KINDS, Kind, Place
from spatial_mllm_ros.rooms.world.floor_plan import FloorPlan, Opening
from spatial_mllm_ros.rooms.world.kit import Kit, Model, Support
from spatial_mllm_ros.rooms.world.parts import bounds_of
from spatial_mllm_ros.rooms.world.routes import CLEARANCE_M, Routes

_TRIES = 14
_LARGE = ("table", "bed", "bathtub", "sofa", "piano")


@dataclass(frozen=True)
class Placed:
    """A thing in its place.

    Attributes:
        origin_m: position of the origin of its frame in the scene.
        scale: factor of all its lengths.
        low_m, high_m: corners of the box that is tight around its scaled parts, in the thing's own frame.
        on: index of the thing that it stands on; -1 for the floor or a wall.
    """

    label: str
    model: Model
    origin_m: tuple[float, float, float]
    yaw_rad: float
    scale: float
    cell: int
    low_m: np.ndarray
    high_m: np.ndarray
    on: int = -1


_Shape2d = tuple[float, float, float, float, float, float]  # centre x y, half lengths, cos, sin
_Taken = tuple[_Shape2d, float, float]  # what stands there, from which height to which
_OnWall = tuple[int, float, float, float, float]  # which wall, from where to where along it, lowest and highest


def furnish(k: Kit, plan: FloorPlan, routes: Routes) -> list[Placed]:
    """Fills the plan: large things first, then things at walls, on walls, on the floor, and on furniture."""
    taken: list[list[_Taken]] = [_sills(plan, cell) for cell in range(len(plan.cells))]
    walls: list[list[_OnWall]] = [_holes(plan, cell) for cell in range(len(plan.cells))]
    placed: list[Placed] = []
    theme = [k.pick(*"LBKWO") for _ in plan.cells]
    for kind, cell in _wishes(k, plan, theme):  # type: ignore[arg-type]
        if kind.place in (Place.WALL, Place.FLOOR):
            found = _on_floor(k, kind, plan, routes, cell, taken[cell], walls[cell])
        elif kind.place is Place.TOP:
            found = _on_top(k, kind, placed, taken)
        else:
            found = _on_wall(k, kind, plan, cell, taken[cell], walls[cell])
        if found is not None:
            placed.append(found)
    return placed


def _wishes(k: Kit, plan: FloorPlan, theme: list[str]) -> list[tuple[Kind, int]]:
    """Which kinds to try in which cells: about two thirds of them once, and a few kinds several times."""
    inner = [plan.inside(cell) for cell in range(len(plan.cells))]
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in inner]
    several = [kind for kind in KINDS if kind.many > 1]
    repeated = [several[k.n(0, len(several) - 1)] for _ in range(2 + len(areas))]
    wishes: list[tuple[float, Kind, int]] = []
    single: set[str] = {kind.label for kind in repeated}
    for kind in repeated:
        home = k.n(0, len(areas) - 1)
        for _ in range(k.n(2, kind.many + 2)):
            cell = home if k.chance(0.7) else k.n(0, len(areas) - 1)
            wishes.append((_order(k, kind), kind, cell))
    for cell, area in enumerate(areas):
        for _ in range(round(area * k.u(0.55, 1.05)) + 3):
            kind = KINDS[k.n(0, len(KINDS) - 1)]
            if kind.label in single or (theme[cell] not in kind.themes and k.chance(0.45)):
                continue
            if k.chance(0.8):
                single.add(kind.label)
            wishes.append((_order(k, kind), kind, cell))
    wishes.sort(key=lambda wish: wish[0])
    return [(kind, cell) for _, kind, cell in wishes]


def _order(k: Kit, kind: Kind) -> float:
    # Large things come first, because there is no place for them among small ones.
    rank = {Place.WALL: 1.0, Place.HUNG: 2.0, Place.FLOOR: 3.0, Place.TOP: 4.0}[kind.place]
    return (0.0 if kind.label in _LARGE else rank) + k.u(0, 0.99)


def _drawn(k: Kit, kind: Kind) -> tuple[Model, float, np.ndarray, np.ndarray]:
    # The scale is drawn separately from the proportions, so that the class of a thing does not tell its size.
    model, scale = kind.make(k), math.exp(k.u(-0.36, 0.36))
    if kind.label == "door":
        scale = k.u(0.9, 1.04)
    low, high = bounds_of(model.parts)
    return model, scale, low * scale, high * scale


def _on_floor(
    k: Kit,
    kind: Kind,
    plan: FloorPlan,
    routes: Routes,
    cell: int,
    taken: list[_Taken],
    walls: list[_OnWall],
) -> Placed | None:
    model, scale, low, high = _drawn(k, kind)
    x0, y0, x1, y1 = plan.inside(cell)
    w, d = float(high[0] - low[0]), float(high[1] - low[1])
    if high[2] > plan.ceiling_m - 0.08:
        return None
    for _ in range(_TRIES):
        if kind.place is Place.WALL:
            side = k.n(0, 3)
            length, room = (y1 - y0, x1 - x0) if side < 2 else (x1 - x0, y1 - y0)
            if w > length - 0.1 or d > 0.6 * room:
                continue
            along = k.u(0.04, length - w - 0.04) + w / 2 if k.chance(0.7) else 0.05 + w / 2
            gap = k.u(0.01, 0.06) + d / 2
            x, y, yaw = _at_wall((x0, y0, x1, y1), side, along, gap)
            if _blocks(walls, side, along, w, 0.0, float(high[2]), y0 if side < 2 else x0):
                continue
        else:
            x, y, yaw = k.u(x0 + 0.2, x1 - 0.2), k.u(y0 + 0.2, y1 - 0.2), k.u(-math.pi, math.pi)
            if k.chance(0.4):
                yaw = round(yaw / (math.pi / 2)) * math.pi / 2
        shape = (x, y, w / 2, d / 2, math.cos(yaw), math.sin(yaw))
        if not _within(shape, (x0, y0, x1, y1)) or _meets(shape, 0.0, float(high[2]), taken, 0.04):
            continue
        if _near_strips(shape, routes.strips_m):
            continue
        taken.append((shape, 0.0, float(high[2])))
        if kind.place is Place.WALL:
            at = along + (y0 if side < 2 else x0)
            walls.append((side, at - w / 2, at + w / 2, 0.0, float(high[2])))
        return _standing(kind.label, model, x, y, 0.0, yaw, scale, cell, low, high, -1)
    return None


def _on_top(k: Kit, kind: Kind, placed: list[Placed], taken: list[list[_Taken]]) -> Placed | None:
    hosts = [i for i, thing in enumerate(placed) if thing.model.support is not None and thing.on < 0]
    if not hosts:
        return None
    model, scale, low, high = _drawn(k, kind)
    w, d = float(high[0] - low[0]), float(high[1] - low[1])
    for _ in range(6):
        index = hosts[k.n(0, len(hosts) - 1)]
        host = placed[index]
        rest: Support = host.model.support  # type: ignore[assignment]
        (xa, xb), (ya, yb) = ((v * host.scale for v in pair) for pair in (rest.x_m, rest.y_m))
        turn = k.u(-0.5, 0.5)
        reach = 0.5 * (abs(math.cos(turn)) * w + abs(math.sin(turn)) * d)
        reach_y = 0.5 * (abs(math.sin(turn)) * w + abs(math.cos(turn)) * d)
        if xb - xa < 2 * reach or yb - ya < 2 * reach_y:
            continue
        u, v = k.u(xa + reach, xb - reach), k.u(ya + reach_y, yb - reach_y)
        cos, sin = math.cos(host.yaw_rad), math.sin(host.yaw_rad)
        x, y = host.origin_m[0] + cos * u - sin * v, host.origin_m[1] + sin * u + cos * v
        yaw = host.yaw_rad + turn
        shape = (x, y, w / 2, d / 2, math.cos(yaw), math.sin(yaw))
        if any(_overlap(shape, _footprint(other), 0.02) for other in placed if other.on == index):
            continue
        z = host.origin_m[2] + rest.z_m * host.scale
        hung = [other for other in taken[host.cell] if other[1] > 0]
        if _meets(shape, z, z + float(high[2] - low[2]), hung, 0.02):
            continue
        return _standing(kind.label, model, x, y, z, yaw, scale, host.cell, low, high, index)
    return None


def _on_wall(
    k: Kit, kind: Kind, plan: FloorPlan, cell: int, taken: list[_Taken], walls: list[_OnWall]
) -> Placed | None:
    model, scale, low, high = _drawn(k, kind)
    x0, y0, x1, y1 = plan.inside(cell)
    w, rise = float(high[0] - low[0]), float(high[2] - low[2])
    outer = (plan.cells[cell][0] < 1e-9, _is_outer(plan, cell, 0), plan.cells[cell][1] < 1e-9, _is_outer(plan, cell, 1))
    for _ in range(_TRIES):
        side = k.n(0, 3)
        length = y1 - y0 if side < 2 else x1 - x0
        is_door = kind.label == "door"
        if w > length - 0.2 or (is_door and not outer[side]):
            continue
        along = k.u(0.1, length - w - 0.1) + w / 2
        bottom = 0.0 if is_door else k.u(1.25, max(1.3, plan.ceiling_m - rise - 0.25))
        if bottom + rise > plan.ceiling_m - 0.03:
            continue
        if _blocks(walls, side, along, w + 0.1, bottom, bottom + rise, y0 if side < 2 else x0):
            continue
        at = along + (y0 if side < 2 else x0)
        walls.append((side, at - w / 2 - 0.05, at + w / 2 + 0.05, bottom, bottom + rise))
        gap = float(-low[1]) + 0.004
        x, y, yaw = _at_wall((x0, y0, x1, y1), side, along, gap)
        found = Placed(kind.label, model, (x, y, bottom - float(low[2])), yaw, scale, cell, low, high)
        taken.append((_footprint(found), bottom, bottom + rise))
        return found
    return None


def _at_wall(
    inside: tuple[float, float, float, float], side: int, along: float, gap: float
) -> tuple[float, float, float]:
    """x, y and yaw of a thing ``gap`` away from a wall of a cell; its front (+y) looks into the room."""
    x0, y0, x1, y1 = inside
    return (
        (x0 + gap, y0 + along, -math.pi / 2),
        (x1 - gap, y0 + along, math.pi / 2),
        (x0 + along, y0 + gap, 0.0),
        (x0 + along, y1 - gap, math.pi),
    )[side]


def _is_outer(plan: FloorPlan, cell: int, axis: int) -> bool:
    return plan.cells[cell][2 + axis] > max(c[2 + axis] for c in plan.cells) - 1e-9


def _standing(
    label: str,
    model: Model,
    x: float,
    y: float,
    z: float,
    yaw: float,
    scale: float,
    cell: int,
    low: np.ndarray,
    high: np.ndarray,
    on: int,
) -> Placed:
    """A thing whose box is centred over (x, y) with its lowest point at height ``z``."""
    mx, my = float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2
    cos, sin = math.cos(yaw), math.sin(yaw)
    origin = (x - cos * mx + sin * my, y - sin * mx - cos * my, z - float(low[2]))
    return Placed(label, model, origin, yaw, scale, cell, low, high, on)


def _holes(plan: FloorPlan, cell: int) -> list[_OnWall]:
    """The openings in a cell's walls, with a margin."""
    return [
        (_side(plan, cell, o), o.span_m[0] - 0.1, o.span_m[1] + 0.1, o.height_m[0] - 0.06, o.height_m[1] + 0.09)
        for o in plan.openings
        if cell in o.cells
    ]


def _sills(plan: FloorPlan, cell: int) -> list[_Taken]:
    """The window sills of a cell, 14 cm deep, and the height above them."""
    sills: list[_Taken] = []
    for o in plan.openings:
        if o.kind == "window" and cell in o.cells:
            inward = 1.0 if o.cells[0] == -1 else -1.0
            middle, half = sum(o.span_m) / 2, (o.span_m[1] - o.span_m[0]) / 2 + 0.06
            at = o.position_m + inward * (plan.wall_m / 2 + 0.07)
            shape = (at, middle, 0.07, half, 1.0, 0.0) if o.axis == 0 else (middle, at, half, 0.07, 1.0, 0.0)
            sills.append((shape, o.height_m[0] - 0.04, o.height_m[0]))
    return sills


def _side(plan: FloorPlan, cell: int, opening: Opening) -> int:
    """Which wall of the cell: 0 low x, 1 high x, 2 low y, 3 high y."""
    rect = plan.cells[cell]
    return 2 * opening.axis + int(abs(rect[opening.axis] - opening.position_m) > 1e-9)


def _blocks(
    walls: list[_OnWall], side: int, along: float, width: float, bottom: float, top: float, start: float
) -> bool:
    """Whether something on the wall is in the way of a thing whose centre is ``along`` metres from ``start``."""
    low, high = start + along - width / 2, start + along + width / 2
    return any(s == side and low < b and a < high and bottom < up and top > down for s, a, b, down, up in walls)


def _meets(shape: _Shape2d, bottom: float, top: float, taken: list[_Taken], gap: float) -> bool:
    return any(bottom < up and top > down and _overlap(shape, other, gap) for other, down, up in taken)


def _footprint(thing: Placed) -> _Shape2d:
    mx, my = (thing.low_m[:2] + thing.high_m[:2]) / 2
    cos, sin = math.cos(thing.yaw_rad), math.sin(thing.yaw_rad)
    half = (thing.high_m - thing.low_m) / 2
    return (
        thing.origin_m[0] + cos * mx - sin * my,
        thing.origin_m[1] + sin * mx + cos * my,
        float(half[0]),
        float(half[1]),
        cos,
        sin,
    )


def _within(shape: _Shape2d, rect: tuple[float, float, float, float]) -> bool:
    x, y, a, b, cos, sin = shape
    rx, ry = abs(cos) * a + abs(sin) * b, abs(sin) * a + abs(cos) * b
    return x - rx >= rect[0] and x + rx <= rect[2] and y - ry >= rect[1] and y + ry <= rect[3]


def _overlap(one: _Shape2d, two: _Shape2d, gap: float) -> bool:
    """Whether two rectangles, the first grown by ``gap``, overlap (separating axis theorem)."""
    dx, dy = two[0] - one[0], two[1] - one[1]
    if math.hypot(dx, dy) > math.hypot(one[2], one[3]) + math.hypot(two[2], two[3]) + gap:
        return False
    c = one[4] * two[4] + one[5] * two[5]
    s = one[4] * two[5] - one[5] * two[4]
    for (_, _, a, b, cos, sin), (_, _, p, q, _, _) in ((one, two), (two, one)):
        if abs(cos * dx + sin * dy) > a + abs(c) * p + abs(s) * q + gap:
            return False
        if abs(cos * dy - sin * dx) > b + abs(s) * p + abs(c) * q + gap:
            return False
    return True


def _near_strips(shape: _Shape2d, strips: np.ndarray) -> bool:
    """Whether the rectangle comes closer than the clearance to a strip."""
    for ax, ay, bx, by in strips.tolist():
        dx, dy = bx - ax, by - ay
        length = math.hypot(dx, dy)
        cos, sin = (dx / length, dy / length) if length > 1e-9 else (1.0, 0.0)
        strip = ((ax + bx) / 2, (ay + by) / 2, length / 2 + CLEARANCE_M, CLEARANCE_M, cos, sin)
        if _overlap(shape, strip, 0.0):
            return True
    return False
