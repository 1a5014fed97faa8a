"""Annotations of a scene: objects with oriented boxes, rooms with outlines, and what each frame shows of them.

Generated rooms and scanned scenes have the same format, and questions are built from it alone. The scene frame is
metric with z up (REP-103). Cameras have optical axes (x right, y down, z forward); ``scene_from_cam`` is the only place
where the two conventions meet.

File (JSON; every object, room and frame on a line of its own, so that a message can name the line)::

    {"format": "spatial_mllm_ros/scene", "version": 1, "name": ..., "source": ...,
     "objects": [{"id": 1, "label": "chair", "centre_m": [x, y, z], "size_m": [l, w, h], "yaw_rad": a, "room": 0}, ...],
     "rooms": [{"name": ..., "polygon_m": [[x, y], ...]}, ...],
     "image_px": [width, height],
     "frames": [{"stamp_ns": ..., "scene_from_cam": [16 numbers], "visible": [[id, pixels, fraction], ...]}, ...]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.geometry.oriented_boxes import OrientedBox
from spatial_mllm_ros.storage import write_text

FORMAT = "spatial_mllm_ros/scene"
VERSION = 1


@dataclass(frozen=True, eq=False)
class SceneObject:
    """A thing: its ``id`` (above 0, unique), class, box in the scene frame, and index of its room (-1: unknown)."""

    id: int
    label: str
    box: OrientedBox
    room: int = -1


@dataclass(frozen=True, eq=False)
class SceneRoom:
    """A thing: its ``id`` (above 0, unique), class, box in the scene frame, and index of its room (-1: none)."""

    name: str
    polygon_m: np.ndarray

    @cached_property
    def outline(self) -> shapely.Polygon:
        """The outline as a shapely polygon."""
        return shapely.Polygon(self.polygon_m)

    @property
    def area_m2(self) -> float:
        """Floor area."""
        return float(self.outline.area)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Which of float64 [N, 2] points lie inside: bool [N]."""
        return np.asarray(shapely.contains_xy(self.outline, points))


@dataclass(frozen=True, eq=False)
class Visibility:
    """What F frames show of the N objects, in the order of ``SceneAnnotation.objects``.

    Attributes:
        stamps_ns: int64 [F], in ascending order.
        scene_from_cam: float64 [F, 4, 4].
        pixels: int32 [F, N]: pixels of the image that show the object.
        fraction: float32 [F, N]: an estimate of these pixels divided by the pixels of the whole thing, 0..1; it is less
            than 1 for a thing that the image's border cuts off or that other things hide.
        image_px: width and height.
    """

    stamps_ns: np.ndarray
    scene_from_cam: np.ndarray
    pixels: np.ndarray
    fraction: np.ndarray
    image_px: tuple[int, int]

    def of_frames(self, indices: np.ndarray) -> Visibility:
        """What some of the frames show, in the order of their stamps."""
        chosen = np.sort(np.asarray(indices))
        return Visibility(
            self.stamps_ns[chosen],
            self.scene_from_cam[chosen],
            self.pixels[chosen],
            self.fraction[chosen],
            self.image_px,
        )


@dataclass(frozen=True, eq=False)
class SceneAnnotation:
    """A scene; ``visibility`` is None if it has no frames (a scan), ``source`` is the data set that it comes from."""

    name: str
    objects: tuple[SceneObject, ...]
    rooms: tuple[SceneRoom, ...]
    source: str = ""
    visibility: Visibility | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        ids = [thing.id for thing in self.objects]
        if len(set(ids)) != len(ids) or any(i <= 0 for i in ids):
            raise ConfigurationError(f"Scene {self.name!r}: object ids must be unique and above 0; they are {ids}.")
        seen = self.visibility
        if seen is not None and seen.pixels.shape != (len(seen.stamps_ns), len(ids)):
            raise ConfigurationError(
                f"Scene {self.name!r}: visibility has shape {seen.pixels.shape}, not one row per frame "
                f"({len(seen.stamps_ns)}) and one column per object ({len(ids)})."
            )


def box_pixels(boxes: list[OrientedBox], scene_from_cam: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Pixels that each whole box would cover in an image without borders.

    The silhouette of a convex solid is half the sum of its faces' projected areas.

    Args:
        scene_from_cam: float64 [F, 4, 4]. k: float64 [3, 3] or [F, 3, 3].

    Returns:
        float64 [F, N]; infinite for a box that reaches behind the camera.
    """
    if not boxes:
        return np.zeros((len(scene_from_cam), 0))
    corners = np.stack([box.corners() for box in boxes])
    rotation, eye = scene_from_cam[:, :3, :3], scene_from_cam[:, :3, 3]
    in_cam = np.einsum("fncj,fjk->fnck", corners[None] - eye[:, None, None], rotation)
    z = in_cam[..., 2]
    k = np.broadcast_to(k, (len(scene_from_cam), 3, 3))
    focal = np.stack([k[:, 0, 0], k[:, 1, 1]], -1)[:, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = in_cam[..., :2] / z[..., None] * focal
    faces = flat[:, :, [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]]
    u, v = faces[..., 0], faces[..., 1]
    with np.errstate(invalid="ignore"):
        area = np.abs((u * np.roll(v, -1, -1) - v * np.roll(u, -1, -1)).sum(-1)) / 2
    return np.where((z > 0.02).all(-1), area.sum(-1) / 2, np.inf)


def write_scene(path: Path, scene: SceneAnnotation) -> None:
    """Writes the file described above.

    Raises:
        SourceError: the file cannot be written.
    """
    seen = scene.visibility
    head: dict[str, Any] = {"format": FORMAT, "version": VERSION, "name": scene.name, "source": scene.source}
    lists: dict[str, list[Any]] = {
        "objects": [
            {
                "id": o.id,
                "label": o.label,
                "centre_m": _rounded(o.box.centre_m),
                "size_m": _rounded(o.box.size_m),
                "yaw_rad": round(float(o.box.yaw_rad), 6),
                "room": o.room,
            }
            for o in scene.objects
        ],
        "rooms": [{"name": room.name, "polygon_m": _rounded(room.polygon_m)} for room in scene.rooms],
    }
    if seen is not None:
        head["image_px"] = list(seen.image_px)
        lists["frames"] = [
            {
                "stamp_ns": int(stamp),
                "scene_from_cam": [float(f"{v:.9g}") for v in seen.scene_from_cam[f].reshape(-1)],
                "visible": [
                    [scene.objects[n].id, int(seen.pixels[f, n]), round(float(seen.fraction[f, n]), 4)]
                    for n in np.flatnonzero(seen.pixels[f])
                ],
            }
            for f, stamp in enumerate(seen.stamps_ns)
        ]
    lines = [json.dumps(head)[:-1]]
    for name, entries in lists.items():
        body = ",\n".join(json.dumps(entry) for entry in entries)
        lines.append(f'"{name}": [\n{body}\n]')
    try:
        write_text(path, ",\n".join(lines) + "}\n")
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from error


def read_scene(path: Path) -> SceneAnnotation:
    """Reads a scene file.

    Raises:
        SourceError: naming the file, the line, what is wrong there and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise SourceError(f"The scene file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"The scene file {path} is not UTF-8 text; write it again.") from error
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}); the file may be cut short. Write it again."
        ) from error
    return _Reader(path, text, content).scene()


class _Reader:
    """Makes a scene from parsed JSON, and finds the line of an entry for messages."""

    def __init__(self, path: Path, text: str, content: object) -> None:
        self._path, self._text, self._content = path, text, content

    def scene(self) -> SceneAnnotation:
        content = self._content
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise SourceError(f'{self._path}, line 1: no field "format": "{FORMAT}"; this is not a scene file.')
        if content.get("version") != VERSION:
            raise SourceError(
                f"{self._path}, line 1: version {content.get('version')!r} is not {VERSION}; read it with the release "
                "that wrote it, or write it again."
            )
        objects = tuple(self._each("objects", self._object))
        rooms = tuple(self._each("rooms", self._room))
        visibility = self._visibility(objects) if "frames" in content else None
        try:
            return SceneAnnotation(
                str(content.get("name", "")), objects, rooms, str(content.get("source", "")), visibility
            )
        except ConfigurationError as error:
            raise SourceError(f"{self._path}: {error}") from error

    def _each(self, name: str, make: Any) -> list[Any]:
        entries = self._content.get(name)  # type: ignore[attr-defined]
        if not isinstance(entries, list):
            raise SourceError(f'{self._path}: the list "{name}" is missing; add it, with no entries if there are none.')
        made = []
        for index, entry in enumerate(entries):
            try:
                made.append(make(entry))
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, ConfigurationError) as error:
                missing = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
                raise SourceError(
                    f"{self._path}, line {self._line(name, index)}, {name}[{index}]: {missing}. Add or correct it, or "
                    "remove the entry; every object needs id, label, centre_m, size_m and yaw_rad."
                ) from error
        return made

    def _line(self, name: str, index: int) -> int:
        """The number of the line at which entry ``index`` of the list ``name`` begins."""
        decoder, text = json.JSONDecoder(), self._text
        at = text.index("[", text.index(f'"{name}"')) + 1
        for remaining in range(index, -1, -1):
            while text[at] in " \t\r\n,":
                at += 1
            if remaining:
                at = decoder.raw_decode(text, at)[1]
        return text.count("\n", 0, at) + 1

    @staticmethod
    def _object(entry: dict[str, Any]) -> SceneObject:
        box = OrientedBox(np.array(entry["centre_m"]), np.array(entry["size_m"]), float(entry["yaw_rad"]))
        return SceneObject(int(entry["id"]), str(entry["label"]), box, int(entry.get("room", -1)))

    @staticmethod
    def _room(entry: dict[str, Any]) -> SceneRoom:
        polygon = np.array(entry["polygon_m"], np.float64)
        if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 3 or not np.isfinite(polygon).all():
            raise ValueError("polygon_m must be at least three corners [x, y]")
        return SceneRoom(str(entry.get("name", "")), polygon)

    def _visibility(self, objects: tuple[SceneObject, ...]) -> Visibility:
        column = {thing.id: n for n, thing in enumerate(objects)}
        size = self._content.get("image_px")  # type: ignore[attr-defined]
        if not (isinstance(size, list) and len(size) == 2):
            raise SourceError(f'{self._path}: "image_px" must be [width, height] where there are frames.')

        def frame(entry: dict[str, Any]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
            pixels, fraction = np.zeros(len(objects), np.int32), np.zeros(len(objects), np.float32)
            for number, count, share in entry["visible"]:
                if number not in column:
                    raise ValueError(f'it shows object {number}, which is not in "objects"')
                pixels[column[number]], fraction[column[number]] = count, share
            pose = np.array(entry["scene_from_cam"], np.float64).reshape(4, 4)
            return int(entry["stamp_ns"]), pose, pixels, fraction

        rows = self._each("frames", frame)
        return Visibility(
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows]).reshape(-1, 4, 4),
            np.array([row[2] for row in rows], np.int32).reshape(-1, len(objects)),
            np.array([row[3] for row in rows], np.float32).reshape(-1, len(objects)),
            (int(size[0]), int(size[1])),
        )


def _rounded(values: np.ndarray) -> Any:
    return np.round(values, 6).tolist()
