"""Random sizes, colours and materials, and functions that make parts from the place where they stand."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.rooms.world.parts import Color, Part, Shape, Texture


@dataclass(frozen=True)
class Support:
    """Where other things may stand on an object: a level rectangle in the object's frame, metres."""

    z_m: float
    x_m: tuple[float, float]
    y_m: tuple[float, float]


@dataclass(frozen=True)
class Model:
    """An object before it is placed: parts in its own frame (front +y, floor z = 0), and where things may stand."""

    parts: tuple[Part, ...]
    support: Support | None = None


_COVER = 0.8  # share of the paint in the colour; the rest is the drawn material
_DARKEST, _CONTRAST = 0.45, 0.7  # brightness of paint on black material, and what white material adds


def painted(model: Model, paint: Color) -> Model:
    """The model with all parts in shades of one colour; brighter materials give brighter shades."""

    def over(color: Color) -> Color:
        light = _COVER * (_DARKEST + _CONTRAST * max(color))
        return tuple(min(1.0, (1.0 - _COVER) * c + light * p) for c, p in zip(color, paint, strict=True))  # type: ignore[return-value]

    parts = (
        part._replace(color=over(part.color), color2=None if part.color2 is None else over(part.color2))
        for part in model.parts
    )
    return Model(tuple(parts), model.support)


class Kit:
    """Draws sizes, colours and materials from one generator, so that no two things of a class are equal."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._numbers: list[float] = []
        self._rng = rng

    def _random(self) -> float:
        if not self._numbers:  # one call to numpy for many numbers: worlds are made by the thousand
            self._numbers = self._rng.random(256).tolist()
        return self._numbers.pop()

    def u(self, low: float, high: float) -> float:
        """A uniform number between ``low`` and ``high``."""
        return low + (high - low) * self._random()

    def n(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return min(low + int(self._random() * (high - low + 1)), high)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability

    def pick(self, *choices: object) -> object:
        """One of ``choices``."""
        return choices[self.n(0, len(choices) - 1)]

    def hsv(self, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Color:
        """A colour within ranges."""
        return colorsys.hsv_to_rgb(self.u(*hue) % 1.0, self.u(*saturation), self.u(*value))

    def wood(self) -> Color:
        """From birch to walnut."""
        return self.hsv((0.055, 0.105), (0.35, 0.68), (0.28, 0.78))

    def fabric(self) -> Color:
        """Any colour that cushions come in."""
        return self.hsv((0.0, 1.0), (0.15, 0.65), (0.25, 0.75))

    def bright(self) -> Color:
        """A strong colour."""
        return self.hsv((0.0, 1.0), (0.65, 0.95), (0.55, 0.9))

    def white(self) -> Color:
        """Enamel and porcelain."""
        return self.hsv((0.05, 0.6), (0.0, 0.06), (0.82, 0.95))

    def metal(self) -> Color:
        """Grey."""
        return self.hsv((0.5, 0.65), (0.0, 0.1), (0.4, 0.7))

    def dark(self) -> Color:
        """Nearly black."""
        return self.hsv((0.0, 1.0), (0.0, 0.25), (0.04, 0.13))


def shade(color: Color, factor: float) -> Color:
    """The colour darker (below 1) or lighter."""
    return tuple(min(1.0, c * factor) for c in color)  # type: ignore[return-value]


def block(
    x: float,
    y: float,
    z: float,
    size: tuple[float, float, float],
    color: Color,
    texture: Texture = Texture.PLAIN,
    *,
    color2: Color | None = None,
    pitch: float = 0.0,
    yaw: float = 0.0,
    tile_m: float = 0.5,
    glow: float = 0.0,
) -> Part:
    """A box whose bottom is centred at (x, y, z)."""
    centre = (x, y, z + size[2] / 2)
    return Part(Shape.BOX, centre, size, color, texture, color2, 0.0, pitch, yaw, tile_m, glow)


def tube(
    x: float,
    y: float,
    z: float,
    diameter: float,
    height: float,
    color: Color,
    texture: Texture = Texture.PLAIN,
    *,
    color2: Color | None = None,
    taper: float = 0.0,
    depth: float | None = None,
    pitch: float = 0.0,
    yaw: float = 0.0,
    tile_m: float = 0.5,
    glow: float = 0.0,
) -> Part:
    """A cylinder or cut cone whose bottom is centred at (x, y, z) before it is turned about its centre."""
    size = (diameter, diameter if depth is None else depth, height)
    return Part(Shape.FRUSTUM, (x, y, z + height / 2), size, color, texture, color2, taper, pitch, yaw, tile_m, glow)


def ball(
    x: float,
    y: float,
    z: float,
    size: tuple[float, float, float],
    color: Color,
    texture: Texture = Texture.PLAIN,
    *,
    color2: Color | None = None,
    pitch: float = 0.0,
    yaw: float = 0.0,
    tile_m: float = 0.5,
) -> Part:
    """An ellipsoid whose lowest point is at (x, y, z) before it is turned about its centre."""
    return Part(Shape.ELLIPSOID, (x, y, z + size[2] / 2), size, color, texture, color2, 0.0, pitch, yaw, tile_m)


def legs(width: float, depth: float, height: float, thick: float, color: Color) -> list[Part]:
    """Four square legs at the corners of a rectangle."""
    x, y = (width - thick) / 2, (depth - thick) / 2
    return [block(sx * x, sy * y, 0.0, (thick, thick, height), color) for sx in (-1, 1) for sy in (-1, 1)]
