"""The walk of the camera through a world: smooth, through all cells and doorways, with turns where it lingers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from spatial_mllm_ros.rooms.world.kit import Kit
from spatial_mllm_ros.rooms.world.world import World

_STEP_S = 0.05


@dataclass(frozen=True, eq=False)
class Walk:
    """Positions and angles every 0.05 s: x, y, z (metres, scene), heading, pitch (positive up), roll (radians)."""

    track: np.ndarray = field(repr=False)

    @property
    def duration_s(self) -> float:
        """Length of the walk."""
        return (len(self.track) - 1) * _STEP_S

    def poses(self, times_s: np.ndarray) -> np.ndarray:
        """``scene_from_cam``, float64 [N, 4, 4], at times from 0 to the duration; other times are clipped to them.

        The axes are optical: at pitch and roll 0 the camera looks along its heading, and its y axis points down.
        """
        grid = np.arange(len(self.track)) * _STEP_S
        x, y, z, heading, pitch, roll = (np.interp(times_s, grid, column) for column in self.track.T)
        ch, sh, cp, sp, cr, sr = (f(a) for a in (heading, pitch, roll) for f in (np.cos, np.sin))
        forward = np.stack([ch * cp, sh * cp, sp], -1)
        level_right = np.stack([sh, -ch, np.zeros_like(ch)], -1)
        level_down = np.cross(forward, level_right)
        poses = np.zeros((len(x), 4, 4))
        poses[:, :3, 0] = cr[:, None] * level_right + sr[:, None] * level_down
        poses[:, :3, 1] = cr[:, None] * level_down - sr[:, None] * level_right
        poses[:, :3, 2] = forward
        poses[:, :3, 3] = np.stack([x, y, z], -1)
        poses[:, 3, 3] = 1.0
        return poses


def make_walk(world: World, number: int = 0) -> Walk:
    """Draws walk ``number`` of a world: height (0.45 to 1.9 m), speed, order of the cells, directions of view."""
    k = Kit(np.random.default_rng((world.seed, 3, number)))
    speed, turn_rate = k.u(0.45, 0.95), k.u(0.8, 1.5)
    points: list[tuple[float, float, float]] = []  # x, y, heading
    for at, lingers in _tour(k, world):
        x, y = float(at[0]), float(at[1])
        if points:
            x0, y0, heading = points[-1]
            length = math.hypot(x - x0, y - y0)
            if length > 1e-6:
                before, heading = heading, _nearest_turn(heading, math.atan2(y - y0, x - x0))
                turns = round(abs(heading - before) / (1.3 * turn_rate) / _STEP_S)
                points += [(x0, y0, before + (heading - before) * i / turns) for i in range(1, turns + 1)]
                steps = max(2, round(length / speed / _STEP_S))
                points += [(x0 + (x - x0) * i / steps, y0 + (y - y0) * i / steps, heading) for i in range(1, steps + 1)]
        else:
            points.append((x, y, k.u(-math.pi, math.pi)))
        if lingers:
            sweep = k.u(3.6, 6.6) * (1 if k.chance(0.5) else -1)
            steps = round(abs(sweep) / turn_rate / _STEP_S)
            heading = points[-1][2]
            points += [(x, y, heading + sweep * i / steps) for i in range(1, steps + 1)]
    path = _smooth(np.array(points), 0.35)
    t = np.arange(len(path)) * _STEP_S
    height = min(k.u(0.45, 1.9), world.plan.ceiling_m - 0.45)
    phase = [k.u(0, 6.28) for _ in range(6)]
    down = -0.06 - 0.22 * max(0.0, height - 0.9)  # the higher the camera, the more it looks down
    z = height + 0.06 * np.sin(0.7 * t + phase[0]) + 0.012 * np.sin(9.0 * t + phase[1])
    heading = path[:, 2] + 0.14 * np.sin(1.1 * t + phase[2])
    pitch = down + 0.16 * np.sin(0.83 * t + phase[3]) + 0.1 * np.sin(0.37 * t + phase[4])
    roll = 0.035 * np.sin(1.3 * t + phase[5])
    return Walk(np.column_stack([path[:, :2], z, heading, pitch, roll]))


def _tour(k: Kit, world: World) -> list[tuple[np.ndarray, bool]]:
    """Points to pass, and whether to linger there. It visits every cell once, depth first, and returns the same way."""
    plan, routes = world.plan, world.routes
    visited: set[int] = set()
    tour: list[tuple[np.ndarray, bool]] = []

    def visit(cell: int) -> None:
        visited.add(cell)
        stops = routes.stops_m[cell]
        tour.extend((stop, True) for stop in stops)
        tour.extend((stop, False) for stop in reversed(stops[:-1]))
        ways = list(routes.gates_m)
        ways.sort(key=lambda _: k.u(0, 1))
        for index in ways:
            ends = plan.openings[index].cells
            if cell not in ends:
                continue
            side = ends.index(cell)
            if ends[1 - side] in visited:
                continue
            here, there = routes.gates_m[index][side], routes.gates_m[index][1 - side]
            tour.extend([(here, False), (there, False)])
            visit(ends[1 - side])
            if len(visited) < len(plan.cells):  # the walk ends in the last cell
                tour.extend([(there, False), (here, False), (stops[0], False)])

    visit(k.n(0, len(plan.cells) - 1))
    return tour


def _nearest_turn(heading: float, wanted: float) -> float:
    """``wanted`` plus the number of whole turns that brings it closest to ``heading``."""
    return heading + math.remainder(wanted - heading, 2 * math.pi)


def _smooth(path: np.ndarray, sigma_s: float) -> np.ndarray:
    """Gaussian low pass over time; the ends are repeated."""
    reach = round(3 * sigma_s / _STEP_S)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * _STEP_S / sigma_s) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="edge")
    return np.column_stack([np.convolve(column, kernel, mode="valid") for column in padded.T])
