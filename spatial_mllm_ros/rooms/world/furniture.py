"""Furniture that stands on the floor: a function per class, with the few parts that make it recognisable."""

from __future__ import annotations

from spatial_mllm_ros.rooms.world.kit import Kit, Model, Support, ball, block, legs, shade, tube
from spatial_mllm_ros.rooms.world.parts import Color, Part, Texture


def chair(k: Kit) -> Model:
    """Four legs, a seat, a back of two posts and a rest."""
    w, d, h, seat = k.u(0.38, 0.56), k.u(0.38, 0.56), k.u(0.75, 1.1), k.u(0.40, 0.52)
    frame, cushion = k.wood(), k.fabric()
    back = -d / 2 + 0.025
    return Model(
        (
            *legs(w, d, seat - 0.05, 0.045, frame),
            block(0, 0, seat - 0.05, (w, d, 0.06), cushion, Texture.WEAVE, tile_m=0.2),
            block(-w / 2 + 0.02, back, seat, (0.04, 0.04, h - seat), frame),
            block(w / 2 - 0.02, back, seat, (0.04, 0.04, h - seat), frame),
            block(0, back, seat + 0.45 * (h - seat), (w - 0.08, 0.03, 0.5 * (h - seat)), cushion, Texture.WEAVE),
        )
    )


def stool(k: Kit) -> Model:
    """A round seat on three splayed legs."""
    d, h = k.u(0.28, 0.45), k.u(0.42, 0.8)
    color = k.bright() if k.chance(0.5) else k.wood()
    feet = [
        tube(0.3 * d * x, 0.3 * d * y, 0, 0.045, h - 0.04, shade(color, 0.6), taper=-0.3)
        for x, y in ((1.0, 0.0), (-0.5, 0.87), (-0.5, -0.87))
    ]
    return Model((tube(0, 0, h - 0.06, d, 0.06, color, Texture.WOOD), *feet))


def sofa(k: Kit) -> Model:
    """A long seat between two arms, with cushions and a back."""
    w, d, h, seat = k.u(1.3, 2.5), k.u(0.75, 1.05), k.u(0.65, 0.95), k.u(0.36, 0.46)
    color, arm = k.fabric(), k.u(0.14, 0.24)
    inner = w - 2 * arm
    count = 2 if inner < 1.4 else 3
    cushions = [
        block(
            (i - (count - 1) / 2) * inner / count,
            0.08,
            seat - 0.14,
            (inner / count - 0.03, d - 0.2, 0.14),
            shade(color, 1.15),
            Texture.WEAVE,
            tile_m=0.25,
        )
        for i in range(count)
    ]
    return Model(
        (
            block(0, 0, 0.05, (w, d, seat - 0.19), shade(color, 0.8), Texture.WEAVE),
            block(0, -d / 2 + 0.11, 0.05, (w, 0.22, h - 0.05), color, Texture.WEAVE),
            block(-w / 2 + arm / 2, 0, 0.05, (arm, d, seat + 0.12), color, Texture.WEAVE),
            block(w / 2 - arm / 2, 0, 0.05, (arm, d, seat + 0.12), color, Texture.WEAVE),
            *cushions,
        ),
        Support(seat, (-inner / 2 + 0.05, inner / 2 - 0.05), (-d / 2 + 0.25, d / 2 - 0.05)),
    )


def bed(k: Kit) -> Model:
    """Mattress with a coloured cover, headboard, white sheet at the head."""
    w, d, h = k.u(0.85, 1.9), k.u(1.7, 2.2), k.u(0.38, 0.6)
    frame, cover = k.wood(), k.fabric()
    pattern = k.pick(Texture.CHECKS, Texture.STRIPES, Texture.PLAIN, Texture.DOTS)
    return Model(
        (
            block(0, 0, 0.08, (w, d, h - 0.25), frame, Texture.WOOD),
            block(0, 0.02, h - 0.17, (w - 0.04, d - 0.08, 0.15), k.white()),
            block(0, 0.17 * d, h - 0.15, (w, 0.64 * d, 0.15), cover, pattern, tile_m=0.6),  # type: ignore[arg-type]
            block(0, -d / 2 + 0.03, 0.0, (w + 0.02, 0.06, h + k.u(0.3, 0.6)), frame, Texture.WOOD),
        ),
        Support(h, (-w / 2 + 0.1, w / 2 - 0.1), (-d / 2 + 0.15, d / 2 - 0.1)),
    )


def table(k: Kit) -> Model:
    """A wooden top on four legs."""
    w, d, h = k.u(0.85, 2.0), k.u(0.65, 1.05), k.u(0.66, 0.82)
    wood = k.wood()
    return Model(
        (*legs(w - 0.06, d - 0.06, h - 0.04, 0.07, shade(wood, 0.8)), _top(w, d, h, 0.05, wood)),
        Support(h, (-w / 2 + 0.04, w / 2 - 0.04), (-d / 2 + 0.04, d / 2 - 0.04)),
    )


def round_table(k: Kit) -> Model:
    """A round top on one column and a foot."""
    d, h = k.u(0.55, 1.3), k.u(0.42, 0.78)
    color = k.white() if k.chance(0.4) else k.wood()
    reach = 0.33 * d
    return Model(
        (
            tube(0, 0, h - 0.04, d, 0.04, color, Texture.WOOD),
            tube(0, 0, 0.04, 0.09, h - 0.08, k.metal()),
            tube(0, 0, 0, 0.55 * d, 0.04, k.metal(), taper=0.3),
        ),
        Support(h, (-reach, reach), (-reach, reach)),
    )


def desk(k: Kit) -> Model:
    """A top between a side panel and a block of three drawers."""
    w, d, h = k.u(0.95, 1.7), k.u(0.5, 0.8), k.u(0.68, 0.8)
    wood, dark = k.wood(), k.dark()
    side, drawers = 0.36 * w, []
    x = w / 2 - side / 2
    for i in range(3):
        z = 0.05 + i * (h - 0.1) / 3
        drawers.append(block(x, d / 2 - 0.005, z, (side - 0.05, 0.025, (h - 0.1) / 3 - 0.03), shade(wood, 1.25)))
        drawers.append(block(x, d / 2 + 0.015, z + 0.09, (0.12, 0.02, 0.02), dark))
    return Model(
        (
            _top(w, d, h, 0.04, wood),
            block(-w / 2 + 0.02, 0, 0, (0.04, d, h - 0.04), wood, Texture.WOOD),
            block(x, -0.01, 0, (side, d - 0.03, h - 0.04), shade(wood, 0.85), Texture.WOOD),
            *drawers,
        ),
        Support(h, (-w / 2 + 0.04, w / 2 - 0.04), (-d / 2 + 0.04, d / 2 - 0.04)),
    )


def bookshelf(k: Kit) -> Model:
    """An open case with shelves full of books in many colours."""
    w, d, h = k.u(0.55, 1.3), k.u(0.24, 0.38), k.u(1.1, 2.1)
    wood = k.wood()
    rows = max(3, round(h / 0.38))
    parts = [
        block(-w / 2 + 0.015, 0, 0, (0.03, d, h), wood, Texture.WOOD),
        block(w / 2 - 0.015, 0, 0, (0.03, d, h), wood, Texture.WOOD),
        block(0, -d / 2 + 0.01, 0, (w, 0.02, h), shade(wood, 0.45)),
        block(0, 0, h - 0.03, (w, d, 0.03), wood, Texture.WOOD),
    ]
    pitch = (h - 0.03) / rows
    for row in range(rows):
        z = row * pitch
        parts.append(block(0, 0, z, (w - 0.04, d - 0.01, 0.025), wood))
        left = -w / 2 + 0.04
        for _ in range(3):
            run = k.u(0.12, 0.4) * w
            if left + run > w / 2 - 0.04:
                break
            parts.append(
                block(
                    left + run / 2,
                    0.0,
                    z + 0.025,
                    (run, 0.7 * d, k.u(0.5, 0.85) * (pitch - 0.03)),
                    k.bright(),
                    Texture.STRIPES,
                    color2=k.fabric(),
                    tile_m=0.22,
                )
            )
            left += run + k.u(0.0, 0.1) * w
    return Model(tuple(parts))


def wardrobe(k: Kit) -> Model:
    """A tall closed cupboard with two doors and long handles."""
    w, d, h = k.u(0.8, 1.7), k.u(0.48, 0.68), k.u(1.7, 2.2)
    color = k.white() if k.chance(0.35) else k.wood()
    doors = [
        block(s * (w / 4 - 0.003), d / 2, 0.08, (w / 2 - 0.02, 0.03, h - 0.13), shade(color, 1.12), Texture.WOOD)
        for s in (-1, 1)
    ]
    handles = [block(s * 0.05, d / 2 + 0.03, 0.42 * h, (0.02, 0.03, 0.28), k.dark()) for s in (-1, 1)]
    return Model((block(0, 0, 0, (w, d, h), shade(color, 0.75), Texture.WOOD), *doors, *handles))


def dresser(k: Kit) -> Model:
    """A chest of wide drawers with two knobs each."""
    w, d, h = k.u(0.7, 1.4), k.u(0.38, 0.55), k.u(0.7, 1.15)
    color = k.white() if k.chance(0.3) else k.wood()
    rows, parts = k.n(3, 4), []
    pitch = (h - 0.08) / rows
    for row in range(rows):
        z = 0.05 + row * pitch
        parts.append(block(0, d / 2, z, (w - 0.06, 0.025, pitch - 0.03), shade(color, 1.2), Texture.WOOD))
        parts += [ball(s * w / 4, d / 2 + 0.025, z + pitch / 2 - 0.03, (0.045,) * 3, k.metal()) for s in (-1, 1)]
    return Model((block(0, 0, 0, (w, d, h), shade(color, 0.7), Texture.WOOD), *parts), _whole_top(w, d, h))


def nightstand(k: Kit) -> Model:
    """Small, with one drawer above an open shelf."""
    w, d, h = k.u(0.34, 0.55), k.u(0.32, 0.45), k.u(0.42, 0.65)
    wood = k.wood()
    return Model(
        (
            block(0, 0, 0.55 * h, (w, d, 0.45 * h), wood, Texture.WOOD),
            block(0, d / 2, 0.62 * h, (w - 0.06, 0.02, 0.28 * h), shade(wood, 1.25)),
            ball(0, d / 2 + 0.02, 0.72 * h, (0.04,) * 3, k.dark()),
            *legs(w, d, 0.55 * h, 0.04, wood),
            block(0, 0, 0.15 * h, (w - 0.02, d - 0.02, 0.025), wood),
        ),
        _whole_top(w, d, h),
    )


def refrigerator(k: Kit) -> Model:
    """Tall and smooth: a large door below a small one, vertical handles."""
    w, d, h = k.u(0.55, 0.95), k.u(0.55, 0.78), k.u(1.35, 2.0)
    color = k.white() if k.chance(0.6) else k.metal()
    split = 0.66 * h
    return Model(
        (
            block(0, -0.03, 0, (w, d - 0.06, h), shade(color, 0.85)),
            block(0, d / 2 - 0.02, 0.05, (w, 0.05, split - 0.06), color),
            block(0, d / 2 - 0.02, split, (w, 0.05, h - split), color),
            block(-w / 2 + 0.07, d / 2 + 0.03, split - 0.5, (0.03, 0.04, 0.42), k.dark()),
            block(-w / 2 + 0.07, d / 2 + 0.03, split + 0.06, (0.03, 0.04, 0.25), k.dark()),
        )
    )


def stove(k: Kit) -> Model:
    """A cooker: black top with four rings, oven window, row of knobs."""
    w, d, h = k.u(0.5, 0.8), k.u(0.52, 0.66), k.u(0.82, 0.95)
    color, black = (k.white() if k.chance(0.6) else k.metal()), k.dark()
    rings = [
        tube(sx * w / 4, sy * d / 4, h, 0.3 * w, 0.012, (0.5, 0.1, 0.07), Texture.PLAIN)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    knobs = [tube((i - 1.5) * w / 5, d / 2 + 0.01, h - 0.1, 0.045, 0.03, black, pitch=1.571) for i in range(4)]
    return Model(
        (
            block(0, 0, 0, (w, d, h - 0.02), color),
            block(0, 0, h - 0.02, (w, d, 0.02), black),
            block(0, d / 2, 0.2, (0.75 * w, 0.02, 0.42 * h), black),
            block(0, d / 2 + 0.025, 0.2 + 0.45 * h, (0.75 * w, 0.025, 0.025), k.metal()),
            *rings,
            *knobs,
        )
    )


def washing_machine(k: Kit) -> Model:
    """A white cube with a round dark window in front."""
    w, d, h = k.u(0.5, 0.68), k.u(0.48, 0.65), k.u(0.75, 0.92)
    white, rim = k.white(), k.metal()
    z, size = 0.42 * h, 0.62 * w
    return Model(
        (
            block(0, 0, 0, (w, d, h), white),
            tube(0, d / 2, z - 0.02, size, 0.05, rim, pitch=1.571),
            tube(0, d / 2 + 0.02, z - 0.02, 0.74 * size, 0.05, (0.06, 0.08, 0.12), pitch=1.571),
            block(0, d / 2, 0.86 * h, (w - 0.04, 0.015, 0.1 * h), shade(white, 0.75)),
            tube(0.3 * w, d / 2 + 0.015, 0.9 * h, 0.06, 0.04, rim, pitch=1.571),
        ),
        _whole_top(w, d, h),
    )


def toilet(k: Kit) -> Model:
    """An oval bowl in front of a water tank."""
    w, d, h = k.u(0.34, 0.44), k.u(0.6, 0.76), k.u(0.68, 0.85)
    white = k.white()
    seat, bowl = 0.52 * h, 0.64 * d
    y = d / 2 - bowl / 2
    return Model(
        (
            tube(0, y, 0, 0.85 * w, seat - 0.03, white, depth=0.85 * bowl, taper=-0.35),
            tube(0, y, seat - 0.04, w, 0.045, shade(white, 0.93), depth=bowl),
            tube(0, y + 0.01, seat, 0.66 * w, 0.012, (0.35, 0.4, 0.45), depth=0.68 * bowl),
            block(0, -d / 2 + 0.11, seat - 0.05, (w, 0.2, h - seat + 0.03), white),
            block(0, -d / 2 + 0.11, h - 0.03, (w + 0.03, 0.22, 0.03), shade(white, 0.9)),
        )
    )


def bathtub(k: Kit) -> Model:
    """A long white trough with water and a tap."""
    w, d, h, rim = k.u(1.35, 1.9), k.u(0.65, 0.9), k.u(0.48, 0.65), 0.07
    white = k.white()
    return Model(
        (
            block(0, -d / 2 + rim / 2, 0, (w, rim, h), white),
            block(0, d / 2 - rim / 2, 0, (w, rim, h), white),
            block(-w / 2 + rim / 2, 0, 0, (rim, d, h), white),
            block(w / 2 - rim / 2, 0, 0, (rim, d, h), white),
            block(0, 0, 0, (w - rim, d - rim, 0.6 * h), (0.35, 0.62, 0.72), Texture.CLOUDS),
            tube(-w / 2 + 0.12, 0, h - 0.02, 0.04, 0.2, k.metal()),
            block(-w / 2 + 0.18, 0, h + 0.15, (0.16, 0.035, 0.03), k.metal()),
        )
    )


def sink(k: Kit) -> Model:
    """A basin on a narrow pedestal, with a tap at the back."""
    w, d, h = k.u(0.42, 0.7), k.u(0.36, 0.5), k.u(0.75, 0.92)
    white, metal = k.white(), k.metal()
    return Model(
        (
            tube(0, -0.04, 0, 0.24, h - 0.16, white, taper=0.35),
            block(0, 0, h - 0.18, (w, d, 0.15), white),
            tube(0, 0.03, h - 0.03, 0.72 * w, 0.012, (0.3, 0.36, 0.42), depth=0.62 * d),
            tube(0, -d / 2 + 0.06, h - 0.03, 0.04, 0.18, metal),
            block(0, -d / 2 + 0.12, h + 0.12, (0.03, 0.15, 0.03), metal),
        )
    )


def piano(k: Kit) -> Model:
    """An upright: tall dark case, white keyboard on a ledge, two front legs."""
    w, d, h = k.u(1.25, 1.55), k.u(0.52, 0.68), k.u(1.0, 1.3)
    case = k.dark() if k.chance(0.6) else shade(k.wood(), 0.5)
    ledge = 0.68
    return Model(
        (
            block(0, -0.14, 0, (w, d - 0.28, h), case),
            block(0, d / 2 - 0.14, ledge - 0.1, (w, 0.28, 0.1), case),
            block(
                *(0, d / 2 - 0.12, ledge),
                (w - 0.12, 0.16, 0.02),
                (0.93, 0.92, 0.88),
                Texture.STRIPES,
                color2=(0.03, 0.03, 0.03),
                tile_m=0.16,
            ),
            block(-w / 2 + 0.05, d / 2 - 0.06, 0, (0.08, 0.08, ledge - 0.1), case),
            block(w / 2 - 0.05, d / 2 - 0.06, 0, (0.08, 0.08, ledge - 0.1), case),
            block(0, d / 2 - 0.27, ledge + 0.08, (0.4 * w, 0.02, 0.22), k.white(), pitch=0.2),
        )
    )


def _top(w: float, d: float, h: float, thick: float, color: Color) -> Part:
    return block(0, 0, h - thick, (w, d, thick), color, Texture.WOOD, tile_m=0.8)


def _whole_top(w: float, d: float, h: float) -> Support:
    return Support(h, (-w / 2 + 0.03, w / 2 - 0.03), (-d / 2 + 0.03, d / 2 - 0.03))
