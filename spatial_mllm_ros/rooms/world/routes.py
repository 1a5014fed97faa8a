"""Where the camera walks: points in every cell that are joined by straight strips without furniture."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.rooms.world.floor_plan import FloorPlan
from spatial_mllm_ros.rooms.world.kit import Kit

#: Half the width of a strip: more than the distance of the camera's near plane, less than half a doorway.
CLEARANCE_M = 0.32


@dataclass(frozen=True)
class Routes:
    """The free strips of a plan.

    Attributes:
        stops_m: per cell the points at which the camera lingers, each float64 [2].
        gates_m: per passable opening (index in the plan) the points just inside its two cells.
        strips_m: float64 [S, 4]: x, y of both ends of every strip.
    """

    stops_m: tuple[tuple[np.ndarray, ...], ...]
    gates_m: dict[int, tuple[np.ndarray, np.ndarray]]
    strips_m: np.ndarray


def make_routes(k: Kit, plan: FloorPlan) -> Routes:
    """Draws two or three stops per cell, and joins them with each other and with the cell's doorways."""
    stops = []
    for cell in range(len(plan.cells)):
        x0, y0, x1, y1 = plan.inside(cell)
        count = 2 if (x1 - x0) * (y1 - y0) < 14 else k.n(2, 3)
        stops.append(tuple(np.array([k.u(*_middle(x0, x1)), k.u(*_middle(y0, y1))]) for _ in range(count)))
    strips, gates = [], {}
    for mine in stops:
        strips += [np.concatenate([a, b]) for a, b in itertools.pairwise(mine)]
        strips.append(np.concatenate([mine[0], mine[0]]))
    for index, opening in enumerate(plan.openings):
        if opening.kind == "window":
            continue
        away = np.array((1.0, 0.0) if opening.axis == 0 else (0.0, 1.0)) * (plan.wall_m / 2 + 0.4)
        pair = (opening.middle_m - away, opening.middle_m + away)
        gates[index] = pair
        strips.append(np.concatenate(pair))
        strips += [np.concatenate([gate, stops[c][0]]) for gate, c in zip(pair, opening.cells, strict=True)]
    return Routes(tuple(stops), gates, np.array(strips))


def _middle(low: float, high: float) -> tuple[float, float]:
    margin = 0.32 * (high - low)
    return low + margin, high - margin
