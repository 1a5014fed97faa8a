"""Evidence: what the frames of a scene show well enough for questions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.oriented_boxes import pairwise_distances_m
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation, SceneObject


@dataclass(frozen=True)
class Limits:
    """When a question is clear enough to be asked.

    Attributes:
        image_share: share of the image's pixels that must show a thing in one frame for it to count as seen.
        object_share: share of the thing's own pixels that must be visible in that frame.
        distance_margin: least difference between the distances of the closest thing and of the next one, as a share of
            the next one's.
        distance_margin_m: least difference between these distances in metres.
        angle_margin_deg: least difference between a direction and the border at which its name changes.
        apart_m: least distance on the plan between the things of a direction question.
        way_margin_m: half the width of the robot on a route.
        per_type: most candidates of a type per scene.
    """

    image_share: float = 0.0015
    object_share: float = 0.25
    distance_margin: float = 0.15
    distance_margin_m: float = 0.25
    angle_margin_deg: float = 12.0
    apart_m: float = 0.8
    way_margin_m: float = 0.15
    per_type: int = 24

    def __post_init__(self) -> None:
        for name in ("image_share", "object_share", "distance_margin"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(f"Limits.{name} is {getattr(self, name)}; it must be within 0..1.")
        if not 0 <= self.angle_margin_deg < 45 or self.per_type < 1:
            raise ConfigurationError("Limits: angle_margin_deg must be within 0..45, per_type at least 1.")


class Evidence:
    """A scene with what questions need to know: which things were seen, and which are the only ones of their class.

    Attributes:
        by_label: objects of each class, seen or not.
        clear: ids of the things that were seen well (all things, if the scene has no frames).
        unique: things that were seen well and are the only ones of their class.
        distances_m: float64 [N, N] between the closest points of the objects' boxes.
    """

    def __init__(self, scene: SceneAnnotation, limits: Limits) -> None:
        self.scene, self.limits = scene, limits
        self.by_label: dict[str, list[SceneObject]] = defaultdict(list)
        for thing in scene.objects:
            self.by_label[thing.label].append(thing)
        self.index = {thing.id: n for n, thing in enumerate(scene.objects)}
        self.distances_m = pairwise_distances_m([thing.box for thing in scene.objects])
        seen = scene.visibility
        if seen is None:
            self.clear = set(self.index)
        else:
            share = seen.pixels / float(seen.image_px[0] * seen.image_px[1])
            self._well: np.ndarray = (share >= limits.image_share) & (seen.fraction >= limits.object_share)
            self.clear = {scene.objects[n].id for n in np.flatnonzero(self._well.any(axis=0))}
        self.unique = [
            things[0] for things in self.by_label.values() if len(things) == 1 and things[0].id in self.clear
        ]

    def distance_m(self, a: SceneObject, b: SceneObject) -> float:
        """Between the closest points of two boxes."""
        return float(self.distances_m[self.index[a.id], self.index[b.id]])

    def whole_label_seen(self, label: str) -> bool:
        """Whether every thing of a class was seen well."""
        return all(thing.id in self.clear for thing in self.by_label[label])

    def appearances(self) -> dict[str, tuple[int, int]]:
        """Per class the first frame that shows anything of it, and the first that shows it well; {} without frames."""
        seen = self.scene.visibility
        if seen is None:
            return {}
        found = {}
        for label, things in self.by_label.items():
            columns = [self.index[thing.id] for thing in things]
            well = self._well[:, columns].any(1)
            if well.any():
                trace = (seen.pixels[:, columns] > 0).any(1)
                found[label] = (int(trace.argmax()), int(well.argmax()))
        return found

    def all_rooms_visited(self) -> bool:
        """Whether the camera was inside every room; True if the scene has no frames."""
        seen = self.scene.visibility
        if seen is None:
            return True
        eyes = seen.scene_from_cam[:, :2, 3]
        return all(bool(room.contains(eyes).any()) for room in self.scene.rooms)

    def on_floor(self, thing: SceneObject) -> bool:
        """Whether a thing reaches down to the height of a robot."""
        return bool(thing.box.centre_m[2] - thing.box.size_m[2] / 2 < 0.3)

    def room_of(self, thing: SceneObject) -> int:
        """Index of the room whose outline contains the centre of a thing's box; -1 if there is none."""
        for number, room in enumerate(self.scene.rooms):
            if room.contains(thing.box.centre_m[None, :2])[0]:
                return number
        return -1
