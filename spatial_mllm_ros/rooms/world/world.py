"""A world: everything that one seed decides, ready to be rendered and annotated.

The scene frame is metric, with z up and the floor at z = 0 (REP-103). Cameras have optical axes; poses
(``scene_from_cam``) convert between the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.oriented_boxes import OrientedBox
from spatial_mllm_ros.rooms.world.building import shell_of
from spatial_mllm_ros.rooms.world.floor_plan import FloorPlan, Opening, make_plan
from spatial_mllm_ros.rooms.world.kit import Kit
from spatial_mllm_ros.rooms.world.parts import fill_of, table_of
from spatial_mllm_ros.rooms.world.placement import Placed, furnish
from spatial_mllm_ros.rooms.world.routes import Routes, make_routes
from spatial_mllm_ros.scene_questions.scene_annotation import SceneObject, SceneRoom

#: Seeds of the splits: [first, last). No seed is in two of them, so no world is.
SPLITS: dict[str, tuple[int, int]] = {
    "train": (0, 900_000_000),
    "val": (900_000_000, 901_000_000),
    "test": (901_000_000, 902_000_000),
}

#: To be changed when seeds give other worlds, clips or questions, so that runs on older data are not resumed.
GENERATOR = "rooms 1"

SHADOW_CELLS = 64  #: edge of the map of soft shadows on a cell's floor


def split_seed(split: str, index: int) -> int:
    """The seed of world ``index`` (from 0) of a split.

    Raises:
        ConfigurationError: no such split, or the index is beyond its range.
    """
    if split not in SPLITS:
        raise ConfigurationError(f"The split {split!r} does not exist; use one of {', '.join(SPLITS)}.")
    first, last = SPLITS[split]
    if not 0 <= index < last - first:
        raise ConfigurationError(f"World {index} of split {split!r} does not exist; it has {last - first} worlds.")
    return first + index


@dataclass(frozen=True, eq=False)
class World:
    """One generated building with its furniture.

    Attributes:
        objects: with boxes tight around the drawn shapes; ids count from 1.
        rooms: inner outlines of the walls.
        table: float32 [COLUMNS, P]; see ``parts``. shapes: int64 [P].
        lights_m: float32 [C, 3], the lamp of each cell; power: float32 [C].
        fill: float32 [N], how much of its box's silhouette each object fills; see ``fill_of``.
        shadows: float32 [C, SHADOW_CELLS, SHADOW_CELLS], brightness of the floor 0..1, rows along y.
        ambient, sky: brightness of indirect light, and of the outside seen through windows.
    """

    seed: int
    plan: FloorPlan
    routes: Routes
    objects: tuple[SceneObject, ...]
    rooms: tuple[SceneRoom, ...]
    table: np.ndarray = field(repr=False)
    shapes: np.ndarray = field(repr=False)
    lights_m: np.ndarray = field(repr=False)
    power: np.ndarray = field(repr=False)
    shadows: np.ndarray = field(repr=False)
    fill: np.ndarray = field(repr=False)
    ambient: float = 0.4
    sky: float = 1.0


def make_world(seed: int) -> World:
    """Makes the world of a seed: the same on every machine and in every call.

    Raises:
        ConfigurationError: the seed is negative.
    """
    if seed < 0:
        raise ConfigurationError(f"The seed {seed} is negative; seeds are whole numbers from 0.")
    k = Kit(np.random.default_rng((seed, 1)))
    plan = make_plan(k)
    routes = make_routes(k, plan)
    placed = furnish(k, plan, routes)
    shell, frames = shell_of(k, plan)
    parts = [part for part, _ in shell] + [part for part, _, _ in frames]
    cells = [cell for _, cell in shell] + [cell for _, cell, _ in frames]
    instances, windows = [0] * len(shell), sorted({index for _, _, index in frames})
    instances += [len(placed) + 1 + windows.index(index) for _, _, index in frames]
    scale, yaw, origin = [1.0] * len(parts), [0.0] * len(parts), [(0.0, 0.0, 0.0)] * len(parts)
    for number, thing in enumerate(placed, 1):
        count = len(thing.model.parts)
        parts += thing.model.parts
        cells += [thing.cell] * count
        instances += [number] * count
        scale += [thing.scale] * count
        yaw += [thing.yaw_rad] * count
        origin += [thing.origin_m] * count
    offset = np.random.default_rng((seed, 2)).random((len(parts), 2))
    table, shapes = table_of(
        parts, np.array(scale), np.array(yaw), np.array(origin), np.array(cells), np.array(instances), offset
    )
    objects = [
        SceneObject(n, thing.label, _box(thing), plan.room_of_cell[thing.cell]) for n, thing in enumerate(placed, 1)
    ]
    for index in windows:
        opening = plan.openings[index]
        box = _window_box(plan, opening)
        objects.append(SceneObject(len(objects) + 1, "window", box, plan.room_of_cell[max(opening.cells)]))
    lights = [((x0 + x1) / 2, (y0 + y1) / 2, plan.ceiling_m - 0.3) for x0, y0, x1, y1 in plan.cells]
    return World(
        seed=seed,
        plan=plan,
        routes=routes,
        objects=tuple(objects),
        rooms=tuple(SceneRoom(f"room {i + 1}", polygon) for i, polygon in enumerate(plan.polygons)),
        table=table,
        shapes=shapes,
        lights_m=np.array(lights, np.float32),
        power=np.array([k.u(0.55, 1.15) for _ in plan.cells], np.float32),
        shadows=_shadows(plan, placed),
        fill=fill_of(table, shapes, np.array(instances), [thing.box for thing in objects]),
        ambient=k.u(0.3, 0.55),
        sky=k.u(0.5, 1.6),
    )


def _box(thing: Placed) -> OrientedBox:
    cos, sin = math.cos(thing.yaw_rad), math.sin(thing.yaw_rad)
    x, y, z = (thing.low_m + thing.high_m) / 2
    centre = np.array([cos * x - sin * y, sin * x + cos * y, z]) + thing.origin_m
    return OrientedBox(centre, thing.high_m - thing.low_m, thing.yaw_rad)


def _window_box(plan: FloorPlan, opening: Opening) -> OrientedBox:
    """The box around the frame and the sill that ``building`` makes."""
    inward = 1.0 if opening.cells[0] == -1 else -1.0
    (low, high), (bottom, top) = opening.span_m, opening.height_m
    inner = plan.wall_m / 2 + 0.14
    along, length, at = (low + high) / 2, high - low + 0.12, opening.position_m + inward * inner / 2
    rise = top - bottom + 0.04
    centre = (at, along) if opening.axis == 0 else (along, at)
    size = (inner, length, rise) if opening.axis == 0 else (length, inner, rise)
    return OrientedBox(np.array([*centre, bottom - 0.04 + rise / 2]), np.array(size), 0.0)


def _shadows(plan: FloorPlan, placed: list[Placed]) -> np.ndarray:
    """Soft shadows under what stands on the floor, and darker edges along the walls."""
    n = SHADOW_CELLS
    grid = (np.arange(n) + 0.5) / n
    maps = np.empty((len(plan.cells), n, n), np.float32)
    for cell, (x0, y0, x1, y1) in enumerate(plan.cells):
        x, y = x0 + grid * (x1 - x0), (y0 + grid * (y1 - y0))[:, None]
        edge = np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y)) - plan.wall_m / 2
        light = 0.72 + 0.28 * np.clip(edge / 0.5, 0, 1)
        for thing in placed:
            if thing.cell != cell or thing.on >= 0 or thing.origin_m[2] + thing.low_m[2] > 0.3:
                continue
            box = _box(thing)
            cos, sin = math.cos(box.yaw_rad), math.sin(box.yaw_rad)
            dx, dy = x - box.centre_m[0], y - box.centre_m[1]
            a = np.maximum(np.abs(cos * dx + sin * dy) - box.size_m[0] / 2, 0)
            b = np.maximum(np.abs(cos * dy - sin * dx) - box.size_m[1] / 2, 0)
            light = light * (1.0 - 0.5 * np.clip(1.0 - np.sqrt(a * a + b * b) / 0.22, 0, 1))
        maps[cell] = light
    return maps
