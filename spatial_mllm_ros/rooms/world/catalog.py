"""Every class of thing that rooms hold: how it is built, in which colour, and where it belongs."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from spatial_mllm_ros.rooms.world import furniture as f
from spatial_mllm_ros.rooms.world import small_things as s
from spatial_mllm_ros.rooms.world.kit import Kit, Model, painted
from spatial_mllm_ros.rooms.world.parts import Color


class Place(Enum):
    """Where a thing stands."""

    WALL = "wall"  #: on the floor with its back to a wall
    FLOOR = "floor"  #: anywhere on the floor
    TOP = "top"  #: on furniture
    HUNG = "hung"  #: on a wall


@dataclass(frozen=True)
class Kind:
    """One way to build and place a class of things; a class may have several (``lamp``).

    Attributes:
        label: the name of the class in annotations and questions.
        build: draws one; see ``furniture``.
        place: where it stands.
        themes: rooms in which it is likelier, a letter each: L living, B bedroom, K kitchen, W washroom, O office.
        many: how many of it a room may have when it has several.
    """

    label: str
    build: Callable[[Kit], Model]
    place: Place
    themes: str = "LBKWO"
    many: int = 1

    def make(self, kit: Kit) -> Model:
        """Draws a thing, in the colour of its class."""
        return painted(self.build(kit), PAINTS[self.label])


KINDS: tuple[Kind, ...] = (
    Kind("chair", f.chair, Place.FLOOR, "LKO", 6),
    Kind("stool", f.stool, Place.FLOOR, "LKW", 5),
    Kind("sofa", f.sofa, Place.WALL, "L", 2),
    Kind("bed", f.bed, Place.WALL, "B", 2),
    Kind("table", f.table, Place.FLOOR, "LK", 2),
    Kind("table", f.round_table, Place.FLOOR, "LK", 2),
    Kind("desk", f.desk, Place.WALL, "BO", 2),
    Kind("bookshelf", f.bookshelf, Place.WALL, "LBO", 3),
    Kind("wardrobe", f.wardrobe, Place.WALL, "B", 2),
    Kind("dresser", f.dresser, Place.WALL, "LB", 2),
    Kind("nightstand", f.nightstand, Place.WALL, "B", 3),
    Kind("refrigerator", f.refrigerator, Place.WALL, "K"),
    Kind("stove", f.stove, Place.WALL, "K"),
    Kind("washing machine", f.washing_machine, Place.WALL, "WK", 2),
    Kind("toilet", f.toilet, Place.WALL, "W"),
    Kind("bathtub", f.bathtub, Place.WALL, "W"),
    Kind("sink", f.sink, Place.WALL, "WK", 2),
    Kind("piano", f.piano, Place.WALL, "L"),
    Kind("radiator", s.radiator, Place.WALL, "LBKWO", 3),
    Kind("lamp", s.lamp, Place.FLOOR, "LBO", 3),
    Kind("lamp", s.table_lamp, Place.TOP, "LBO", 3),
    Kind("plant", s.plant, Place.FLOOR, "LBO", 5),
    Kind("trash can", s.trash_can, Place.FLOOR, "KWO", 4),
    Kind("backpack", s.backpack, Place.FLOOR, "BO", 4),
    Kind("suitcase", s.suitcase, Place.FLOOR, "B", 4),
    Kind("ball", s.football, Place.FLOOR, "LB", 6),
    Kind("guitar", s.guitar, Place.WALL, "LB", 2),
    Kind("basket", s.basket, Place.FLOOR, "WBK", 4),
    Kind("box", s.cardboard_box, Place.FLOOR, "O", 6),
    Kind("fan", s.fan, Place.FLOOR, "BO", 2),
    Kind("tv", s.tv, Place.TOP, "LB"),
    Kind("laptop", s.laptop, Place.TOP, "O", 3),
    Kind("pillow", s.pillow, Place.TOP, "LB", 6),
    Kind("teddy bear", s.teddy_bear, Place.TOP, "BL", 4),
    Kind("cup", s.cup, Place.TOP, "KLO", 6),
    Kind("bottle", s.bottle, Place.TOP, "KL", 6),
    Kind("microwave", s.microwave, Place.TOP, "K"),
    Kind("printer", s.printer, Place.TOP, "O", 2),
    Kind("clock", s.clock, Place.HUNG, "LBKWO", 3),
    Kind("picture", s.picture, Place.HUNG, "LBKO", 6),
    Kind("door", s.door, Place.HUNG, "LBKWO", 3),
)

#: All labels in a fixed order, with the window (an opening that the plan builds).
LABELS: tuple[str, ...] = (*dict.fromkeys(kind.label for kind in KINDS), "window")

_PALE, _VIVID, _DEEP = (0.45, 1.0), (0.95, 0.95), (0.85, 0.4)  # saturation and value
_TRIOS = {
    0: ("bed", "backpack", "bookshelf"),
    28: ("box", "basket", "wardrobe"),
    55: ("lamp", "ball", "guitar"),
    80: ("dresser", "bottle", "suitcase"),
    110: ("toilet", "plant", "sofa"),
    140: ("radiator", "fan", "table"),
    165: ("refrigerator", "trash can", "stool"),
    190: ("sink", "bathtub", "clock"),
    212: ("washing machine", "laptop", "desk"),
    235: ("nightstand", "chair", "tv"),
    265: ("microwave", "printer", "piano"),
    295: ("picture", "pillow", "stove"),
    330: ("teddy bear", "cup", "door"),
}  # hue in degrees: a pale, a vivid and a deep class, which differ in size and shape

#: The colour of each class. Without it, classes differ only by the shapes of parts that are smaller than a pixel in the
#: 112x84 pixels that a small model sees. The window, which the plan builds, has no colour of its own.
PAINTS: dict[str, Color] = {
    label: colorsys.hsv_to_rgb(hue / 360, *tone)
    for hue, trio in _TRIOS.items()
    for label, tone in zip(trio, (_PALE, _VIVID, _DEEP), strict=True)
}
