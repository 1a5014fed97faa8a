"""Small things that stand on furniture or on the floor, and things that hang on walls: a function per kind."""

from __future__ import annotations

from spatial_mllm_ros.rooms.world.kit import Kit, Model, ball, block, shade, tube
from spatial_mllm_ros.rooms.world.parts import Texture


def tv(k: Kit) -> Model:
    """A wide black screen in a frame, on a foot."""
    w = k.u(0.6, 1.35)
    h = 0.58 * w
    return Model(
        (
            block(0, 0, 0, (0.4 * w, 0.2, 0.02), k.dark()),
            block(0, -0.02, 0.0, (0.08, 0.04, 0.08), k.dark()),
            block(0, 0, 0.07, (w, 0.05, h), k.dark()),
            block(0, 0.02, 0.09, (w - 0.05, 0.02, h - 0.04), (0.03, 0.07, 0.13), Texture.CLOUDS, glow=0.35),
        )
    )


def laptop(k: Kit) -> Model:
    """A flat base with keys and a bright screen that leans back."""
    w, d = k.u(0.28, 0.42), k.u(0.2, 0.28)
    grey = k.metal()
    return Model(
        (
            block(0, 0, 0, (w, d, 0.022), grey),
            block(0, 0.015, 0.02, (0.85 * w, 0.5 * d, 0.006), k.dark(), Texture.CHECKS, color2=grey, tile_m=0.1),
            block(0, -d / 2 - 0.035, 0.015, (w, 0.015, d), grey, pitch=0.3),
            block(0, -d / 2 - 0.024, 0.03, (0.9 * w, 0.006, 0.86 * d), (0.25, 0.5, 0.8), pitch=0.3, glow=0.8),
        )
    )


def lamp(k: Kit) -> Model:
    """A glowing shade on a pole: tall from the floor, or short for a table."""
    return _lamp(k, k.u(1.15, 1.8), k.u(0.28, 0.48))


def table_lamp(k: Kit) -> Model:
    """The short kind of ``lamp``."""
    return _lamp(k, k.u(0.3, 0.6), k.u(0.18, 0.32))


def _lamp(k: Kit, h: float, d: float) -> Model:
    shade_h, metal = 0.8 * d, k.metal()
    warm = k.hsv((0.08, 0.14), (0.2, 0.5), (0.9, 1.0))
    return Model(
        (
            tube(0, 0, 0, 0.75 * d, 0.03, metal, taper=0.3),
            tube(0, 0, 0.03, 0.03, h - shade_h, metal),
            tube(0, 0, h - shade_h, d, shade_h, warm, taper=0.4, glow=0.9),
        )
    )


def plant(k: Kit) -> Model:
    """A pot with a bush of leaves."""
    h, pot = k.u(0.4, 1.5), k.u(0.18, 0.36)
    pot_h = min(0.9 * pot, 0.4 * h)
    clay = k.hsv((0.02, 0.06), (0.5, 0.75), (0.4, 0.65)) if k.chance(0.6) else k.white()
    crown = h - pot_h
    leaves = []
    for i in range(5):
        green = k.hsv((0.25, 0.38), (0.5, 0.85), (0.2, 0.5))
        x, y = k.u(-0.25, 0.25) * crown, k.u(-0.25, 0.25) * crown
        size = (k.u(0.4, 0.6) * crown, k.u(0.4, 0.6) * crown, k.u(0.45, 0.6) * crown)
        z = pot_h + (0.1 + 0.3 * (i / 4)) * crown
        leaves.append(ball(x, y, z, size, green, Texture.LEAVES, color2=shade(green, 0.45), tile_m=0.3))
    stem = tube(0, 0, pot_h - 0.02, 0.04, 0.5 * crown, (0.25, 0.16, 0.08))
    return Model((tube(0, 0, 0, pot, pot_h, clay, taper=-0.35), stem, *leaves))


def trash_can(k: Kit) -> Model:
    """A bin that widens upwards, with a dark opening and a rim."""
    d, h = k.u(0.22, 0.42), k.u(0.28, 0.65)
    color = k.metal() if k.chance(0.5) else k.bright()
    return Model(
        (
            tube(0, 0, 0, 0.95 * d, h - 0.03, color, taper=-0.25),
            tube(0, 0, h - 0.03, d, 0.03, shade(color, 1.2)),
            tube(0, 0, h - 0.005, 0.85 * d, 0.008, (0.02, 0.02, 0.02)),
        )
    )


def backpack(k: Kit) -> Model:
    """A rounded bag with a front pocket and two straps."""
    w, d, h = k.u(0.26, 0.4), k.u(0.16, 0.26), k.u(0.38, 0.58)
    color = k.bright()
    return Model(
        (
            block(0, 0, 0, (w, d, 0.62 * h), color, Texture.WEAVE, tile_m=0.1),
            ball(0, 0, 0.2 * h, (w, d, 0.8 * h), color, Texture.WEAVE, tile_m=0.1),
            block(0, d / 2 + 0.02, 0.06 * h, (0.7 * w, 0.07, 0.36 * h), shade(color, 0.6)),
            block(0, d / 2 + 0.055, 0.33 * h, (0.6 * w, 0.01, 0.02), (0.9, 0.85, 0.4)),
            block(-w / 4, -d / 2, 0.1 * h, (0.05, 0.05, 0.8 * h), k.dark()),
            block(w / 4, -d / 2, 0.1 * h, (0.05, 0.05, 0.8 * h), k.dark()),
        )
    )


def suitcase(k: Kit) -> Model:
    """An upright hard shell with ribs, wheels and a pulled-out handle."""
    w, d, h = k.u(0.34, 0.54), k.u(0.2, 0.32), k.u(0.5, 0.8)
    color, metal = k.bright(), k.metal()
    return Model(
        (
            block(0, 0, 0.05, (w, d, h - 0.05), color, Texture.STRIPES, color2=shade(color, 0.6), tile_m=0.3),
            block(0, 0, 0.05 + 0.45 * h, (w + 0.015, d + 0.015, 0.03), k.dark()),
            *(tube(sx * 0.4 * w, 0, 0, 0.06, 0.06, k.dark()) for sx in (-1, 1)),
            *(block(sx * 0.3 * w, -d / 4, h, (0.02, 0.02, 0.3), metal) for sx in (-1, 1)),
            block(0, -d / 4, h + 0.3, (0.66 * w, 0.035, 0.035), k.dark()),
        )
    )


def football(k: Kit) -> Model:
    """A ball in two strong colours."""
    d = k.u(0.18, 0.55)
    pattern = k.pick(Texture.CHECKS, Texture.STRIPES)
    return Model((ball(0, 0, 0, (d, d, d), k.bright(), pattern, color2=k.white(), tile_m=d),))  # type: ignore[arg-type]


def teddy_bear(k: Kit) -> Model:
    """Round head with ears and muzzle on a round body with arms and legs."""
    h = k.u(0.28, 0.65)
    fur = k.hsv((0.05, 0.1), (0.45, 0.75), (0.3, 0.65))
    light = shade(fur, 1.5)
    body, head = 0.55 * h, 0.42 * h
    return Model(
        (
            ball(0, 0, 0, (0.85 * body, 0.75 * body, body), fur, Texture.SPECKLE),
            ball(0, 0, 0.5 * h, (head, 0.9 * head, head), fur, Texture.SPECKLE),
            *(ball(s * 0.36 * head, 0, 0.84 * h, (0.38 * head, 0.2 * head, 0.38 * head), fur) for s in (-1, 1)),
            ball(0, 0.42 * head, 0.55 * h, (0.4 * head, 0.3 * head, 0.35 * head), light),
            *(ball(s * 0.42 * body, 0.1 * body, 0.22 * h, (0.3 * body, 0.4 * body, 0.3 * body), fur) for s in (-1, 1)),
            *(ball(s * 0.28 * body, 0.4 * body, 0, (0.32 * body, 0.6 * body, 0.3 * body), light) for s in (-1, 1)),
        )
    )


def guitar(k: Kit) -> Model:
    """Two bulging ovals, a sound hole, a long neck, on a stand."""
    h = k.u(0.85, 1.15)
    wood, dark = k.hsv((0.04, 0.1), (0.6, 0.85), (0.4, 0.75)), k.dark()
    return Model(
        (
            ball(0, 0, 0.04, (0.38 * h, 0.1, 0.32 * h), wood),
            ball(0, 0, 0.24 * h, (0.28 * h, 0.1, 0.26 * h), wood),
            tube(0, 0.05, 0.24 * h, 0.1 * h, 0.02, dark, pitch=1.571),
            block(0, 0.04, 0.4 * h, (0.05, 0.03, 0.5 * h), dark),
            block(0, 0.04, 0.9 * h, (0.09, 0.03, 0.1 * h), wood),
            block(0, -0.05, 0, (0.25, 0.2, 0.03), dark),
        )
    )


def basket(k: Kit) -> Model:
    """Woven, wide and low, with a handle over it."""
    w, h = k.u(0.3, 0.6), k.u(0.2, 0.4)
    straw = k.hsv((0.08, 0.12), (0.4, 0.65), (0.5, 0.8))
    return Model(
        (
            tube(0, 0, 0, w, h, straw, Texture.WICKER, depth=0.75 * w, taper=-0.2, tile_m=0.2),
            tube(0, 0, h - 0.01, 0.9 * w, 0.02, shade(straw, 0.3), depth=0.66 * w),
            block(-0.47 * w, 0, h, (0.03, 0.04, 0.35 * w), straw),
            block(0.47 * w, 0, h, (0.03, 0.04, 0.35 * w), straw),
            block(0, 0, h + 0.35 * w, (0.97 * w, 0.04, 0.03), straw),
        )
    )


def cardboard_box(k: Kit) -> Model:
    """A brown carton with a strip of tape and two open flaps."""
    w, d, h = k.u(0.25, 0.7), k.u(0.25, 0.5), k.u(0.2, 0.5)
    brown = k.hsv((0.075, 0.095), (0.4, 0.55), (0.55, 0.72))
    flap = 0.35 * d
    return Model(
        (
            block(0, 0, 0, (w, d, h), brown),
            block(0, d / 2, 0.3 * h, (0.12 * w, 0.006, 0.7 * h), (0.85, 0.75, 0.5)),
            block(0, -d / 2 - 0.1 * d, h - 0.02, (w, 0.012, flap), shade(brown, 1.15), pitch=0.7),
            block(0, d / 2 + 0.1 * d, h - 0.02, (w, 0.012, flap), shade(brown, 1.15), pitch=-0.7),
            block(0, 0, h - 0.01, (w - 0.03, d - 0.03, 0.014), shade(brown, 0.35)),
        )
    )


def pillow(k: Kit) -> Model:
    """A flat soft cushion, patterned."""
    w, d, h = k.u(0.35, 0.65), k.u(0.28, 0.42), k.u(0.1, 0.18)
    color = k.white() if k.chance(0.4) else k.bright()
    pattern = k.pick(Texture.PLAIN, Texture.DOTS, Texture.STRIPES)
    return Model(
        (
            ball(0, 0, 0, (w, d, h), color, pattern, tile_m=0.3),  # type: ignore[arg-type]
            block(0, 0, 0.3 * h, (0.88 * w, 0.86 * d, 0.4 * h), color, pattern, tile_m=0.3),  # type: ignore[arg-type]
        )
    )


def cup(k: Kit) -> Model:
    """A mug with a handle, somewhat large so that a low-resolution camera sees it."""
    d = k.u(0.09, 0.17)
    h = d * k.u(1.0, 1.4)
    color = k.bright()
    return Model(
        (
            tube(0, 0, 0, d, h, color, taper=-0.12),
            tube(0, 0, h - 0.004, 0.85 * d, 0.006, (0.15, 0.08, 0.04)),
            block(0.62 * d, 0, 0.2 * h, (0.08 * d, 0.14 * d, 0.6 * h), color),
            block(0.52 * d, 0, 0.68 * h, (0.25 * d, 0.14 * d, 0.12 * h), color),
            block(0.52 * d, 0, 0.2 * h, (0.25 * d, 0.14 * d, 0.12 * h), color),
        )
    )


def bottle(k: Kit) -> Model:
    """A slim body, shoulders, a neck with a cap, a label."""
    d, h = k.u(0.07, 0.13), k.u(0.25, 0.42)
    glass = k.hsv((0.28, 0.6), (0.5, 0.85), (0.15, 0.55))
    return Model(
        (
            tube(0, 0, 0, d, 0.58 * h, glass),
            tube(0, 0, 0.58 * h, d, 0.17 * h, glass, taper=0.6),
            tube(0, 0, 0.75 * h, 0.4 * d, 0.2 * h, glass),
            tube(0, 0, 0.93 * h, 0.48 * d, 0.07 * h, k.bright()),
            tube(0, 0, 0.15 * h, 1.02 * d, 0.3 * h, k.white()),
        )
    )


def microwave(k: Kit) -> Model:
    """A flat box with a dark window, a handle and a strip of buttons."""
    w, d, h = k.u(0.42, 0.6), k.u(0.3, 0.42), k.u(0.24, 0.34)
    color = k.white() if k.chance(0.5) else k.metal()
    return Model(
        (
            block(0, 0, 0, (w, d, h), color),
            block(-0.12 * w, d / 2, 0.12 * h, (0.66 * w, 0.015, 0.76 * h), k.dark()),
            block(0.24 * w, d / 2 + 0.02, 0.15 * h, (0.025, 0.03, 0.7 * h), shade(color, 0.7)),
            block(
                *(0.38 * w, d / 2, 0.2 * h),
                (0.16 * w, 0.012, 0.6 * h),
                k.dark(),
                Texture.CHECKS,
                color2=(0.3, 0.7, 0.4),
                tile_m=0.12,
            ),
        )
    )


def printer(k: Kit) -> Model:
    """A squat body with a slot, a tray of paper in front, paper standing at the back."""
    w, d, h = k.u(0.36, 0.55), k.u(0.28, 0.4), k.u(0.16, 0.3)
    color = k.dark() if k.chance(0.5) else shade(k.white(), 0.85)
    paper = (0.95, 0.95, 0.95)
    return Model(
        (
            block(0, 0, 0, (w, d, h), color),
            block(0, d / 2 + 0.08, 0.15 * h, (0.7 * w, 0.18, 0.02), paper),
            block(0, d / 2, 0.2 * h, (0.8 * w, 0.01, 0.2 * h), (0.02, 0.02, 0.02)),
            block(0, -d / 2 + 0.04, 0.9 * h, (0.65 * w, 0.012, 0.75 * h), paper, pitch=0.35),
            block(0.3 * w, d / 2 - 0.06, h, (0.2 * w, 0.06, 0.01), (0.2, 0.6, 0.9), glow=0.5),
        )
    )


def fan(k: Kit) -> Model:
    """A standing fan: foot, pole, a round cage with a hub."""
    h, d = k.u(0.8, 1.35), k.u(0.34, 0.5)
    color = k.white() if k.chance(0.5) else k.bright()
    blades = [
        block(0, 0.0, h - d / 2 - 0.06, (0.9 * d, 0.015, 0.12), shade(color, 0.7)),
        block(0, 0.0, h - 0.95 * d, (0.12, 0.015, 0.9 * d), shade(color, 0.7)),
    ]
    return Model(
        (
            tube(0, 0, 0, 0.75 * d, 0.03, color, taper=0.2),
            tube(0, -0.05, 0.03, 0.035, h - d / 2, color),
            tube(0, -0.04, h - d / 2 - 0.01, d, 0.02, (0.22, 0.24, 0.27), Texture.WICKER, pitch=1.571, tile_m=0.15),
            *blades,
            tube(0, 0.0, h - d / 2 - 0.03, 0.11, 0.06, color, pitch=1.571),
        )
    )


def clock(k: Kit) -> Model:
    """A white disc in a coloured ring, with two hands; hangs on a wall."""
    d = k.u(0.24, 0.5)
    rim = k.bright() if k.chance(0.5) else k.dark()
    return Model(
        (
            tube(0, 0.02, d / 2 - 0.02, d, 0.04, rim, pitch=1.571),
            tube(0, 0.035, d / 2 - 0.02, 0.86 * d, 0.04, (0.95, 0.94, 0.9), pitch=1.571),
            block(0, 0.06, d / 2, (0.03, 0.01, 0.34 * d), (0.02, 0.02, 0.02)),
            block(0.12 * d, 0.06, d / 2 - 0.015, (0.24 * d, 0.01, 0.03), (0.02, 0.02, 0.02)),
        )
    )


def picture(k: Kit) -> Model:
    """A framed painting of hills under a sky; hangs on a wall."""
    w, h = k.u(0.35, 1.2), k.u(0.3, 0.9)
    frame = k.wood() if k.chance(0.6) else k.dark()
    horizon = k.u(0.3, 0.6) * h
    return Model(
        (
            block(0, 0.02, 0, (w, 0.03, h), frame),
            block(
                0, 0.036, 0.05, (w - 0.1, 0.012, h - 0.1), k.hsv((0.5, 0.65), (0.2, 0.5), (0.6, 0.9)), Texture.CLOUDS
            ),
            block(0, 0.04, 0.05, (w - 0.1, 0.012, horizon - 0.05), k.bright(), Texture.LEAVES, tile_m=0.4),
            tube(0.2 * w, 0.045, 0.72 * h - 0.006, 0.14 * h, 0.012, (0.95, 0.8, 0.2), pitch=1.571),
        )
    )


def radiator(k: Kit) -> Model:
    """White ribs between two rails; stands close to a wall."""
    w, h = k.u(0.5, 1.3), k.u(0.45, 0.75)
    white = shade(k.white(), 0.95)
    count = max(5, round(w / 0.11))
    ribs = [block((i + 0.5) * w / count - w / 2, 0, 0.08, (0.6 * w / count, 0.1, h - 0.1), white) for i in range(count)]
    return Model(
        (
            *ribs,
            block(0, 0, 0.12, (w, 0.05, 0.05), shade(white, 0.8)),
            block(0, 0, h - 0.1, (w, 0.05, 0.05), shade(white, 0.8)),
            block(-w / 2 + 0.04, 0, 0, (0.04, 0.04, 0.12), shade(white, 0.7)),
            block(w / 2 - 0.04, 0, 0, (0.04, 0.04, 0.12), shade(white, 0.7)),
        )
    )


def door(k: Kit) -> Model:
    """A closed leaf in its frame with two panels and a handle; on an outer wall."""
    w, h = k.u(0.75, 1.0), k.u(1.9, 2.15)
    color = k.white() if k.chance(0.3) else k.wood()
    trim = shade(color, 0.6)
    return Model(
        (
            block(0, 0.02, 0, (w, 0.05, h), color, Texture.WOOD),
            block(0, 0.045, 0.18, (0.66 * w, 0.015, 0.34 * h), trim),
            block(0, 0.045, 0.24 + 0.36 * h, (0.66 * w, 0.015, 0.46 * h), trim),
            block(-w / 2 - 0.03, 0.03, 0, (0.06, 0.08, h + 0.06), trim),
            block(w / 2 + 0.03, 0.03, 0, (0.06, 0.08, h + 0.06), trim),
            block(0, 0.03, h, (w, 0.08, 0.06), trim),
            block(0.4 * w, 0.08, 0.48 * h, (0.12, 0.06, 0.03), k.metal()),
        )
    )
