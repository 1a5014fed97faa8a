"""ScanNet scans (arXiv 1702.04405) as scene annotations: the builder then asks about them as about generated rooms.

A scan's folder holds ``ID.aggregation.json`` (or ``ID_vh_clean.aggregation.json``), ``ID_vh_clean_2*.segs.json``,
``ID_vh_clean_2.ply`` (binary or ASCII) and ``ID.txt`` with the line ``axisAlignment = 16 numbers``. Boxes are
axis-aligned in the aligned frame, as in ScanNet's own detection benchmark. The room is the convex hull of the points
that are labelled floor; for an L-shaped room that is too large. The scan's frames are not read, so the annotation has
no visibility. No command reads scans yet: ``load_scannet_scene`` is used from Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.geometry.oriented_boxes import OrientedBox
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation, SceneObject, SceneRoom

#: Parts of the building, of which nobody asks how many there are.
STRUCTURE = ("wall", "floor", "ceiling", "object", "unknown", "remove", "room", "misc")

_PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_THINNEST_M = 0.01  # a flat thing still needs a box


def load_scannet_scene(folder: Path) -> SceneAnnotation:
    """Reads one scan; its name is the folder's.

    Raises:
        SourceError: all missing files at once; or the file, the line or entry, what is wrong there and what to do.
    """
    name = folder.name
    patterns = {
        "aggregation": (f"{name}.aggregation.json", f"{name}_vh_clean.aggregation.json"),
        "segments": (f"{name}_vh_clean_2*.segs.json", f"{name}*.segs.json"),
        "mesh": (f"{name}_vh_clean_2.ply",),
        "alignment": (f"{name}.txt",),
    }
    found = {
        what: next((path for pattern in options for path in sorted(folder.glob(pattern))), None)
        for what, options in patterns.items()
    }
    missing = [patterns[what][0] for what, path in found.items() if path is None]
    if missing:
        raise SourceError(f"{folder} lacks {', '.join(missing)}; download these files of scan {name!r} as well.")
    paths = {what: path for what, path in found.items() if path is not None}
    points = _aligned(_read_vertices(paths["mesh"]), _read_alignment(paths["alignment"]))
    segment_of = _read_segments(paths["segments"], len(points))
    objects, floor = [], np.zeros((0, 3))
    for number, label, segments in _read_groups(paths["aggregation"]):
        mine = points[np.isin(segment_of, segments)]
        if len(mine) == 0:
            raise SourceError(
                f"{paths['aggregation']}, segGroups with id {number} ({label!r}): none of its segments is in "
                f"{paths['segments'].name}, so it has no box; the two files belong to different versions of the scan. "
                "Download both again."
            )
        if label == "floor":
            floor = np.concatenate([floor, mine])
        if label not in STRUCTURE:
            low, high = mine.min(0), mine.max(0)
            box = OrientedBox((low + high) / 2, np.maximum(high - low, _THINNEST_M), 0.0)
            objects.append(SceneObject(number + 1, label, box, 0))
    hull = shapely.convex_hull(shapely.MultiPoint((floor if len(floor) else points)[:, :2]))
    outline = shapely.get_coordinates(shapely.orient_polygons(hull))[:-1]
    rooms = (SceneRoom("room 1", outline),) if hull.area > 0 else ()
    return SceneAnnotation(name, tuple(objects), rooms, "scannet")


def _aligned(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}). Download the file again."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Download the file again.") from error


def _read_groups(path: Path) -> list[tuple[int, str, list[int]]]:
    content = _read_json(path)
    groups = content.get("segGroups") if isinstance(content, dict) else None
    if not isinstance(groups, list):
        raise SourceError(f'{path}: the list "segGroups" is missing. Download the file again.')
    read = []
    for index, group in enumerate(groups):
        try:
            read.append(
                (int(group.get("objectId", group["id"])), str(group["label"]), list(map(int, group["segments"])))
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(
                f"{path}, segGroups[{index}]: {error!s} is missing or no such value; each group needs id, label and "
                "segments. Correct the entry or download the file again."
            ) from error
    return read


def _read_segments(path: Path, vertices: int) -> np.ndarray:
    content = _read_json(path)
    indices = content.get("segIndices") if isinstance(content, dict) else None
    if not isinstance(indices, list) or len(indices) != vertices:
        count = len(indices) if isinstance(indices, list) else "no"
        raise SourceError(
            f"{path}: {count} segIndices for a mesh of {vertices} vertices; use the file made for _vh_clean_2.ply."
        )
    return np.asarray(indices, np.int64)


def _read_alignment(path: Path) -> np.ndarray:
    """The 4x4 matrix of ``axisAlignment``; the identity where the line is absent (test scans have none)."""
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                return np.array([float(word) for word in value.split()]).reshape(4, 4)
            except ValueError as error:
                raise SourceError(
                    f"{path}, line {number}: axisAlignment must be 16 numbers, row by row. Correct the line."
                ) from error
    return np.eye(4)


def _read_vertices(path: Path) -> np.ndarray:
    """x, y, z of a PLY file's vertices, float64 [N, 3]."""
    data = path.read_bytes()
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise SourceError(f"{path} is no PLY file, or its header is cut short. Download it again.")
    body = data[data.index(b"\n", end) + 1 :]
    form, count, in_vertex = "", 0, False
    columns: list[tuple[str, str]] = []
    for number, line in enumerate(data[:end].decode("ascii", "replace").splitlines(), 1):
        words = line.split()
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            if columns == [] and not in_vertex and words[1] != "vertex":
                raise SourceError(f"{path}, line {number}: the vertices must be the first element. Convert the file.")
            in_vertex = words[1] == "vertex"
            count = int(words[2]) if in_vertex else count
        elif words[:1] == ["property"] and in_vertex:
            if words[1] not in _PLY_TYPES:
                raise SourceError(f"{path}, line {number}: a vertex property of type {words[1]!r}. Convert the file.")
            columns.append((words[2], _PLY_TYPES[words[1]]))
    names = [name for name, _ in columns]
    if not {"x", "y", "z"} <= set(names):
        raise SourceError(f"{path}: its vertices have no x, y, z but {', '.join(names) or 'nothing'}.")
    try:
        if form == "ascii":
            rows = [line.split() for line in body.decode("ascii").splitlines()[:count]]
            table = np.array(rows, np.float64)
            return np.column_stack([table[:, names.index(axis)] for axis in "xyz"])
        order = "<" if form == "binary_little_endian" else ">"
        vertices = np.frombuffer(body, np.dtype([(name, order + kind) for name, kind in columns]), count)
        return np.column_stack([vertices[axis].astype(np.float64) for axis in "xyz"])
    except (ValueError, IndexError) as error:
        raise SourceError(
            f"{path} holds fewer than its {count} vertices; it is cut short. Download it again."
        ) from error
