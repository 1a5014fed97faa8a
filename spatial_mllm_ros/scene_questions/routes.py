"""Routes from thing to thing along straight free ways, described by turns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from spatial_mllm_ros.scene_questions.directions import turn_angle_deg
from spatial_mllm_ros.scene_questions.evidence import Evidence
from spatial_mllm_ros.scene_questions.scene_annotation import SceneObject

TURNS = ("Turn Back", "Turn Left", "Turn Right")


@dataclass(frozen=True, eq=False)
class Route:
    """A route from ``start`` along ``stops``; the robot faces ``facing`` at the start.

    ``turns`` has one turn for each stop; the first is None if the robot faces its first stop at the start.
    """

    start: SceneObject
    facing: SceneObject
    stops: tuple[SceneObject, ...]
    turns: tuple[str | None, ...]

    @property
    def answer(self) -> str:
        """The turns to fill in, in order."""
        return ", ".join(turn for turn in self.turns if turn is not None)

    def steps(self) -> str:
        """The numbered actions with blanks for the turns."""
        actions = []
        for turn, stop in zip(self.turns, self.stops, strict=True):
            if turn is not None:
                actions.append("[please fill in]")
            actions.append(f"Go forward until the {stop.label}")
        return " ".join(
            f"{number}. {action}{'.' if number == len(actions) else ''}" for number, action in enumerate(actions, 1)
        )

    def wrong_answers(self, rng: np.random.Generator) -> list[str]:
        """Two other answers for one turn, three for more, drawn independently of the right answer."""
        count = sum(turn is not None for turn in self.turns)
        others = [", ".join(turns) for turns in itertools.product(TURNS, repeat=count)]
        others.remove(self.answer)
        return [others[i] for i in rng.permutation(len(others))[: min(3, len(others))]]


def turn_name(angle_deg: float, margin_deg: float) -> str | None:
    """The name of the turn by an angle (left positive); None if it is neither clearly to a side nor clearly back.

    Turns to a side are those of 45 to 135 degrees, turns back those of more. A turn of less than 45 has no name.
    """
    size = abs(angle_deg)
    if size >= 135.0 + margin_deg:
        return "Turn Back"
    if 45.0 + margin_deg <= size <= 135.0 - margin_deg:
        return "Turn Left" if angle_deg > 0 else "Turn Right"
    return None


def route_candidates(evidence: Evidence, rng: np.random.Generator, tries: int) -> Iterator[Route]:
    """Random routes of one or two turns within a room, over free ways between things on the floor."""
    limits = evidence.limits
    things = [thing for thing in evidence.unique if evidence.on_floor(thing)]
    rooms = {thing.id: evidence.room_of(thing) for thing in things}
    things = [thing for thing in things if rooms[thing.id] >= 0]
    ways = _Ways(evidence)

    for _ in range(tries):
        legs = int(rng.integers(1, 3))
        faces_first = bool(legs > 1 and rng.random() < 0.5)
        needed = legs + (1 if faces_first else 2)
        if len(things) < needed:
            continue
        start, *chosen = (things[i] for i in rng.choice(len(things), needed, replace=False))
        facing = chosen[0]
        stops = tuple(chosen) if faces_first else tuple(chosen[1:])
        if rooms[start.id] != rooms[facing.id]:
            continue
        path = (start, *stops)
        if not all(rooms[a.id] == rooms[b.id] and ways.free(a, b, rooms[a.id]) for a, b in itertools.pairwise(path)):
            continue
        points = [thing.box.centre_m[:2] for thing in path]
        ahead = facing.box.centre_m[:2]
        turns: list[str | None] = []
        for n in range(len(stops)):
            # At the end of a leg, the robot faces in the direction of the leg.
            front = ahead if n == 0 else 2 * points[n] - points[n - 1]
            angle = turn_angle_deg(points[n], front, points[n + 1])
            turns.append(turn_name(angle, limits.angle_margin_deg))
        if faces_first:
            if None in turns[1:]:
                continue
            turns[0] = None
        elif None in turns:
            continue
        if np.hypot(*(ahead - points[0])) >= limits.apart_m:
            yield Route(start, facing, stops, tuple(turns))


class _Ways:
    """Which straight ways between two things a robot can drive: long enough, within the room, past everything else."""

    def __init__(self, evidence: Evidence) -> None:
        limits, things = evidence.limits, evidence.scene.objects
        low = [thing for thing in things if evidence.on_floor(thing)]
        footprints = shapely.polygons(np.array([thing.box.footprint() for thing in low]).reshape(-1, 4, 2))
        self._obstacles = shapely.buffer(footprints, limits.way_margin_m, join_style="mitre")
        self._ids = np.array([thing.id for thing in low])
        self._rooms, self._apart_m = evidence.scene.rooms, limits.apart_m
        self._known: dict[frozenset[int], bool] = {}

    def free(self, a: SceneObject, b: SceneObject, room: int) -> bool:
        """Whether the way between two things on the floor of a room is free."""
        key = frozenset((a.id, b.id))
        if key not in self._known:
            self._known[key] = self._free(a, b, room)
        return self._known[key]

    def _free(self, a: SceneObject, b: SceneObject, room: int) -> bool:
        way = shapely.LineString([a.box.centre_m[:2], b.box.centre_m[:2]])
        if way.length < self._apart_m or not self._rooms[room].outline.covers(way):
            return False
        others = (self._ids != a.id) & (self._ids != b.id)
        return not (shapely.intersects(self._obstacles, way) & others).any()
