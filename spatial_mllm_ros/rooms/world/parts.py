"""The parts of all things in a room: boxes, tapered cylinders and ellipsoids, each a scaled and turned unit shape.

An object's own frame: x to its right, y to its front (a wall is at its back), z up, the floor at z = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from spatial_mllm_ros.geometry.oriented_boxes import OrientedBox

Color = tuple[float, float, float]  #: linear red, green, blue, 0..1


class Shape(IntEnum):
    """The unit shapes; each of them fits in the cube from -1 to 1."""

    BOX = 0
    FRUSTUM = 1  #: along z; the radius goes linearly from bottom to top, the larger one is 1
    ELLIPSOID = 2


class Texture(IntEnum):
    """Which pattern mixes a part's two colours; see ``textures``."""

    PLAIN = 0
    WOOD = 1
    WEAVE = 2
    STRIPES = 3
    CHECKS = 4
    DOTS = 5
    PLANKS = 6
    TILES = 7
    BRICKS = 8
    SPECKLE = 9
    LEAVES = 10
    WICKER = 11
    PANELS = 12
    CLOUDS = 13


class Part(NamedTuple):
    """One shape of an object.

    Attributes:
        centre_m: centre in the object's frame.
        size_m: full lengths along the part's own axes.
        taper: how much narrower the top (positive) or the bottom (negative) of a frustum is, -1..1.
        pitch_rad: rotation about the part's x axis, which comes first (for positive angles its top leans to -y).
        yaw_rad: rotation about the vertical axis, which comes second.
        color: first colour of the texture.
        color2: second colour; None: a darker shade of the first.
        tile_m: edge length of one texture tile.
        glow: 0 for a part that is lit by the room's lights, 1 for one that shines by itself.
    """

    shape: Shape
    centre_m: tuple[float, float, float]
    size_m: tuple[float, float, float]
    color: Color
    texture: Texture = Texture.PLAIN
    color2: Color | None = None
    taper: float = 0.0
    pitch_rad: float = 0.0
    yaw_rad: float = 0.0
    tile_m: float = 0.5
    glow: float = 0.0


#: Rows of the table of parts that the renderer reads (float32 [COLUMNS, P]); shading needs only the first SHADED rows.
ROW_MATRIX = 0  #: 9 rows: unit-from-scene, linear part, row by row
ROW_CENTRE = 9  #: 3 rows: centre in the scene, metres
ROW_HALF = 12  #: 3 rows: half lengths, metres
ROW_COLOR = 15  #: 3 rows
ROW_COLOR2 = 18  #: 3 rows: difference of the second colour to the first
ROW_TEXTURE = 21
ROW_TEXELS = 22  #: tiles per metre
ROW_OFFSET = 23  #: 2 rows: where in the tile the part's centre lies, in tiles
ROW_GLOW = 25
ROW_LIGHT = 26  #: 4 rows: the lamp of the part's cell (x, y, z) and its power; filled in by ``packing``
SHADED = 30
ROW_AXES = 30  #: 9 rows: axis k of the part in the scene as rows 30 + 3 k ...
ROW_TAPER = 39
ROW_CELL = 40  #: which cell of the plan owns the part
ROW_INSTANCE = 41
COLUMNS = 42


def axes_of(pitch_rad: np.ndarray, yaw_rad: np.ndarray) -> np.ndarray:
    """Axes of turned parts as columns, Rz(yaw) Rx(pitch): float64 [P, 3, 3]."""
    cp, sp, cy, sy = np.cos(pitch_rad), np.sin(pitch_rad), np.cos(yaw_rad), np.sin(yaw_rad)
    zero = np.zeros_like(cp)
    return np.stack(
        [
            np.stack([cy, -sy * cp, sy * sp], -1),
            np.stack([sy, cy * cp, -cy * sp], -1),
            np.stack([zero, sp, cp], -1),
        ],
        -2,
    )


def bounds_of(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """The tight axis-aligned box around ``parts`` in the object's frame: lowest and highest corner, float64 [3]."""
    centre = np.array([part.centre_m for part in parts])
    half = np.array([part.size_m for part in parts]) / 2
    shape = np.array([part.shape for part in parts])
    taper = np.array([part.taper for part in parts])
    scaled = axes_of(np.array([p.pitch_rad for p in parts]), np.array([p.yaw_rad for p in parts])) * half[:, None, :]
    box, frustum = shape == Shape.BOX, shape == Shape.FRUSTUM
    reach = np.where(box[:, None], np.abs(scaled).sum(-1), np.sqrt((scaled**2).sum(-1)))
    low, high = centre - reach, centre + reach
    if frustum.any():
        disc, along = np.sqrt((scaled[frustum, :, :2] ** 2).sum(-1)), scaled[frustum, :, 2]
        bottom = 1.0 + np.minimum(taper[frustum], 0.0)[:, None]
        top = 1.0 - np.maximum(taper[frustum], 0.0)[:, None]
        high[frustum] = centre[frustum] + np.maximum(-along + bottom * disc, along + top * disc)
        low[frustum] = centre[frustum] + np.minimum(-along - bottom * disc, along - top * disc)
    return low.min(0), high.max(0)


def fill_of(table: np.ndarray, shapes: np.ndarray, instance: np.ndarray, boxes: Sequence[OrientedBox]) -> np.ndarray:
    """Estimates how much of its box's silhouette each object fills: a fridge nearly all, a lamp on a thin pole little.

    The estimate is the area of the parts' silhouettes from the front, from the side and (with a lower weight) from
    above, divided by that of the box. Parts that hide one another count twice, so it is clipped at 1.

    Args:
        table, shapes: as ``table_of`` gives them. instance: int [P], 1.. for the objects of ``boxes``, 0 for none.

    Returns:
        float32 [N], 0.02..1.
    """
    yaw = np.array([0.0, *(box.yaw_rad for box in boxes)])[instance]
    cos, sin = np.cos(yaw), np.sin(yaw)
    axes = table[ROW_AXES : ROW_AXES + 9].reshape(3, 3, -1) * table[ROW_HALF : ROW_HALF + 3][:, None]
    own = np.stack([cos * axes[:, 0] + sin * axes[:, 1], cos * axes[:, 1] - sin * axes[:, 0], axes[:, 2]])
    round_off = np.array([1.0, 0.9, 0.785])[shapes]  # a disc fills 78.5 % of its square
    x, y, z = 2 * np.where(shapes == Shape.BOX, np.abs(own).sum(1), np.sqrt((own**2).sum(1)))
    areas = np.bincount(instance, (x * z + y * z + 0.35 * x * y) * round_off, len(boxes) + 1)[1:]
    w, d, h = np.array([box.size_m for box in boxes]).reshape(-1, 3).T
    return np.clip(areas / (w * h + d * h + 0.35 * w * d), 0.02, 1.0).astype(np.float32)


def table_of(
    parts: Sequence[Part],
    part_scale: np.ndarray,
    object_yaw_rad: np.ndarray,
    object_origin_m: np.ndarray,
    cell: np.ndarray,
    instance: np.ndarray,
    offset: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The renderer's table for P parts of many objects.

    Args:
        parts: P parts; each object's parts lie in its own frame.
        part_scale: float64 [P]: uniform scale of the part's object.
        object_yaw_rad: float64 [P]; object_origin_m: float64 [P, 3]: where the part's object stands.
        cell: int [P]; instance: int [P], 0 for the building itself.
        offset: float64 [P, 2]: texture offset in tiles.

    Returns:
        table float32 [COLUMNS, P], and shapes int64 [P].
    """
    centre = np.array([part.centre_m for part in parts]) * part_scale[:, None]
    half = np.array([part.size_m for part in parts]) / 2 * part_scale[:, None]
    pitch = np.array([part.pitch_rad for part in parts])
    yaw = np.array([part.yaw_rad for part in parts]) + object_yaw_rad
    axes = axes_of(pitch, yaw)
    cos, sin = np.cos(object_yaw_rad), np.sin(object_yaw_rad)
    turned = np.stack(
        [cos * centre[:, 0] - sin * centre[:, 1], sin * centre[:, 0] + cos * centre[:, 1], centre[:, 2]], -1
    )
    table = np.empty((COLUMNS, len(parts)), np.float32)
    table[ROW_MATRIX : ROW_MATRIX + 9] = (axes.transpose(0, 2, 1) / half[:, :, None]).reshape(-1, 9).T
    table[ROW_CENTRE : ROW_CENTRE + 3] = (turned + object_origin_m).T
    table[ROW_HALF : ROW_HALF + 3] = half.T
    table[ROW_AXES : ROW_AXES + 9] = axes.transpose(0, 2, 1).reshape(-1, 9).T
    color = np.array([part.color for part in parts])
    color2 = np.array([part.color2 or tuple(0.72 * c for c in part.color) for part in parts])
    table[ROW_COLOR : ROW_COLOR + 3] = color.T
    table[ROW_COLOR2 : ROW_COLOR2 + 3] = (color2 - color).T
    table[ROW_TEXTURE] = [part.texture for part in parts]
    table[ROW_TEXELS] = [1.0 / part.tile_m for part in parts]
    table[ROW_OFFSET : ROW_OFFSET + 2] = offset.T
    table[ROW_LIGHT : ROW_LIGHT + 4] = 0.0
    table[ROW_GLOW] = [part.glow for part in parts]
    table[ROW_TAPER] = [part.taper for part in parts]
    table[ROW_CELL] = cell
    table[ROW_INSTANCE] = instance
    return table, np.array([part.shape for part in parts], np.int64)
