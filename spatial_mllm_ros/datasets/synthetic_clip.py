"""A short RGB-D clip of a made-up room with exact depth and poses, for demos and tests without real data.

Every pixel's ray is cut with boxes (slab method, Kay and Kajiya 1986): the room from inside, the furniture from
outside. Rays have length 1 along the optical axis, so the ray parameter is the depth itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.datasets.recording import FIRST_STAMP_NS
from spatial_mllm_ros.datasets.rgbd_folder import write_rgbd_folder
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics

ROOM_SIZE_M = (6.4, 4.8, 2.7)  #: along x, y, z; a corner of the floor is the origin, z points up

_TILE_PX = 512
_TEXTURE_PX_PER_M = 160.0


@dataclass(frozen=True)
class _Box:
    """A box that stands with ``centre_m``, edge lengths ``size_m``, turned by ``yaw_rad`` about the vertical."""

    centre_m: tuple[float, float, float]
    size_m: tuple[float, float, float]
    yaw_rad: float
    color: tuple[int, int, int]
    pattern: str


# Centre and size in metres; the camera walks around the table in the middle, between it and the furniture at the walls.
_FURNITURE = (
    _Box((3.15, 2.35, 0.37), (1.30, 0.80, 0.74), 0.35, (168, 112, 62), "planks"),  # table
    _Box((3.05, 2.50, 0.84), (0.32, 0.22, 0.20), 0.90, (196, 62, 52), "checks"),  # box on the table
    _Box((3.42, 2.20, 0.79), (0.14, 0.14, 0.10), 0.20, (60, 110, 190), "noise"),  # mug-sized cube
    _Box((0.31, 1.40, 1.00), (0.50, 1.20, 2.00), 0.00, (120, 84, 56), "planks"),  # wardrobe
    _Box((0.38, 3.55, 0.45), (0.66, 1.50, 0.90), 0.00, (90, 128, 104), "stripes"),  # chest of drawers
    _Box((2.30, 0.32, 0.40), (1.90, 0.55, 0.80), 0.00, (86, 96, 138), "noise"),  # couch
    _Box((4.45, 0.26, 0.95), (0.80, 0.42, 1.90), 0.00, (190, 176, 150), "stripes"),  # bookshelf
    _Box((6.08, 1.25, 0.42), (0.54, 1.00, 0.84), 0.00, (208, 208, 200), "checks"),  # washing machine
    _Box((6.00, 3.60, 0.75), (0.62, 0.70, 1.50), 0.12, (70, 74, 80), "noise"),  # fridge
    _Box((4.70, 4.45, 0.38), (1.10, 0.50, 0.76), -0.06, (150, 94, 120), "planks"),  # desk
    _Box((4.62, 4.52, 0.98), (0.50, 0.10, 0.42), -0.06, (44, 48, 58), "checks"),  # screen on the desk
    _Box((2.05, 4.50, 0.55), (0.90, 0.38, 1.10), 0.00, (200, 150, 60), "stripes"),  # sideboard
    _Box((1.15, 0.62, 0.22), (0.40, 0.36, 0.44), 0.60, (70, 140, 80), "checks"),  # crate
)
_ROOM_COLORS = ((206, 198, 182), (176, 192, 204), (210, 188, 170), (186, 200, 178), (150, 118, 86), (226, 224, 218))
_ROOM_PATTERNS = ("wallpaper", "stripes", "noise", "wallpaper", "planks", "noise")  # -x +x -y +y floor ceiling
_LIGHT = np.array([0.35, 0.22, 0.91])  # towards the light, for plain diffuse shading


def synthetic_clip(
    *, frame_count: int = 90, rate_hz: float = 15.0, width_px: int = 640, height_px: int = 480
) -> Iterator[Frame]:
    """A walk around the table of a furnished room; the same bytes at every call.

    Yields:
        Frames with exact ``depth_m`` (every pixel has one), ``scene_from_cam`` (z up, metres) and ``intrinsics``.

    Raises:
        ConfigurationError: a size, the count or the rate is not above 0.
    """
    for name, value in (
        ("frame_count", frame_count),
        ("rate_hz", rate_hz),
        ("width_px", width_px),
        ("height_px", height_px),
    ):
        if not value > 0:
            raise ConfigurationError(f"synthetic_clip: {name} is {value}; it must be above 0.")
    # Not quite square pixels and an off-centre axis, so that code which mixes them up is found out.
    intrinsics = Intrinsics(525.0, 530.0, 322.0, 237.5, 640, 480).resized(width_px, height_px)
    textures = _textures()
    for index in range(frame_count):
        scene_from_cam = _pose(index / max(frame_count - 1, 1))
        rgb, depth_m = _render(scene_from_cam, intrinsics, textures)
        stamp_ns = FIRST_STAMP_NS + round(index * 1e9 / rate_hz)
        yield Frame(stamp_ns, rgb, intrinsics=intrinsics, depth_m=depth_m, scene_from_cam=scene_from_cam)


def write_synthetic_clip(folder: Path, *, frame_count: int = 90, width_px: int = 640, height_px: int = 480) -> int:
    """Writes the clip (15 Hz) as an RGB-D folder; returns the number of frames. See ``write_rgbd_folder``."""
    return write_rgbd_folder(folder, synthetic_clip(frame_count=frame_count, width_px=width_px, height_px=height_px))


def _pose(progress: float) -> np.ndarray:
    """Camera-to-scene at ``progress`` 0..1 of the walk: 300 degrees around the table, the head turning as it goes."""
    around = -2.5 + progress * np.deg2rad(300.0)
    eye = np.array([3.25 + 1.75 * np.cos(around), 2.4 + 1.15 * np.sin(around), 1.5 + 0.06 * np.sin(9 * progress)])
    heading = around + np.pi + 0.75 * np.sin(2 * np.pi * 1.5 * progress + 0.4)
    pitch = -0.28 + 0.16 * np.sin(2 * np.pi * 2.1 * progress)
    roll = 0.05 * np.sin(2 * np.pi * progress + 1.0)
    forward = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)])
    level_right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    level_down = np.cross(forward, level_right)
    right = np.cos(roll) * level_right + np.sin(roll) * level_down
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def _render(scene_from_cam: np.ndarray, camera: Intrinsics, textures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour uint8 [H, W, 3] and depth float32 [H, W] in metres."""
    x = (np.arange(camera.width_px) - camera.cx_px) / camera.fx_px
    y = ((np.arange(camera.height_px) - camera.cy_px) / camera.fy_px)[:, None]
    # [3, H, W]: every step below works on whole planes, several times as fast as on triples.
    rays = np.stack([(row[0] * x + row[1] * y + row[2]).astype(np.float32) for row in scene_from_cam[:3, :3]])
    eye = scene_from_cam[:3, 3]
    depth_m, rgb = _room(eye, rays, textures)
    for box, texture in zip(_FURNITURE, textures[len(_ROOM_COLORS) :], strict=True):
        window = _window(box, scene_from_cam, camera)
        if window is not None:
            _draw_box(box, eye, rays[:, window[0], window[1]], depth_m[window], rgb[window], texture)
    return rgb, depth_m


def _room(eye: np.ndarray, rays: np.ndarray, textures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The six inner faces of the room: where each ray leaves it."""
    with np.errstate(divide="ignore"):
        leaving = [
            np.where(ray > 0, size - at, -at).astype(np.float32) / np.where(ray == 0, np.float32(1e-9), ray)
            for ray, at, size in zip(rays, eye, ROOM_SIZE_M, strict=True)
        ]
    depth_m = np.minimum(np.minimum(leaving[0], leaving[1]), leaving[2])
    axis = np.where(depth_m == leaving[0], 0, np.where(depth_m == leaving[1], 1, 2))
    face = 2 * axis + (np.choose(axis, rays) > 0)
    light = np.stack([_LIGHT, -_LIGHT], axis=1).reshape(6)[face]  # inward normals: +x -x +y -y +z -z
    points = [np.float32(at) + depth_m * ray for at, ray in zip(eye, rays, strict=True)]
    return depth_m, _shaded(textures, face, axis, points, light, depth_m)


def _window(box: _Box, scene_from_cam: np.ndarray, camera: Intrinsics) -> tuple[slice, slice] | None:
    """The part of the image that can show the box; None when it is behind the camera or out of view."""
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    corners = (signs * box.size_m) @ _yaw(box.yaw_rad).T + box.centre_m
    in_cam = (corners - scene_from_cam[:3, 3]) @ scene_from_cam[:3, :3]
    if (in_cam[:, 2] <= 0).all():
        return None
    if (in_cam[:, 2] < 0.05).any():
        return slice(None), slice(None)  # reaches behind the camera: its outline says nothing
    u = in_cam[:, 0] / in_cam[:, 2] * camera.fx_px + camera.cx_px
    v = in_cam[:, 1] / in_cam[:, 2] * camera.fy_px + camera.cy_px
    left, right = max(int(u.min()), 0), min(int(u.max()) + 2, camera.width_px)
    top, bottom = max(int(v.min()), 0), min(int(v.max()) + 2, camera.height_px)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _draw_box(
    box: _Box, eye: np.ndarray, rays: np.ndarray, depth_m: np.ndarray, rgb: np.ndarray, texture: np.ndarray
) -> None:
    """Draws the box over ``depth_m`` and ``rgb`` (views, changed in place) where it is nearer."""
    box_from_scene = _yaw(box.yaw_rad).T
    origin = box_from_scene @ (eye - box.centre_m)
    cosine, sine = np.float32(box_from_scene[0, 0]), np.float32(box_from_scene[0, 1])
    rays_box = (cosine * rays[0] + sine * rays[1], cosine * rays[1] - sine * rays[0], rays[2])
    enter_each, leave_each = [], []
    for ray, at, size in zip(rays_box, origin, box.size_m, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = np.float32(-size / 2 - at) / ray, np.float32(size / 2 - at) / ray
        enter_each.append(np.fmin(one, other))
        leave_each.append(np.fmax(one, other))
    enter = np.maximum(np.maximum(enter_each[0], enter_each[1]), enter_each[2])
    leave = np.minimum(np.minimum(leave_each[0], leave_each[1]), leave_each[2])
    hit = (enter < leave) & (enter > 0) & (enter < depth_m)
    if not hit.any():
        return
    enter_hit = enter[hit]
    axis = np.where(enter_hit == enter_each[0][hit], 0, np.where(enter_hit == enter_each[1][hit], 1, 2))
    rays_hit = [ray[hit] for ray in rays_box]
    light = np.choose(axis, [-np.sign(ray) * at for ray, at in zip(rays_hit, box_from_scene @ _LIGHT, strict=True)])
    points = [np.float32(at) + enter_hit * ray for at, ray in zip(origin, rays_hit, strict=True)]
    depth_m[hit] = enter_hit
    rgb[hit] = _shaded(texture[None], np.zeros_like(axis), axis, points, light, enter_hit)


def _shaded(
    tiles: np.ndarray,
    tile: np.ndarray,
    axis: np.ndarray,
    points: list[np.ndarray],
    light: np.ndarray,
    depth_m: np.ndarray,
) -> np.ndarray:
    """Colour of surface points (x, y, z): the texture of their face, lit from above, dimmed with distance; uint8."""
    # A face across axis a is painted over the other two axes, the vertical one last.
    u = np.where(axis == 0, points[1], points[0])
    v = np.where(axis == 2, points[1], points[2])
    # Points lie within 10 m of the origin; the shift keeps the remainder of negative ones cheap and continuous.
    iu = (u * _TEXTURE_PX_PER_M + 8 * _TILE_PX).astype(np.int32) & (_TILE_PX - 1)
    iv = (v * _TEXTURE_PX_PER_M + 8 * _TILE_PX).astype(np.int32) & (_TILE_PX - 1)
    brightness = (0.66 + 0.34 * np.maximum(light, -0.35)) * (1.06 - 0.05 * depth_m)
    colors = tiles.reshape(-1, 3)[(tile * _TILE_PX + iv) * _TILE_PX + iu]
    return np.minimum(colors * brightness[..., None].astype(np.float32), 255).astype(np.uint8)


def _yaw(angle_rad: float) -> np.ndarray:
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _textures() -> np.ndarray:
    """One periodic tile per surface, six of the room and then the furniture: float32 [N, 512, 512, 3], 0..255."""
    rng = np.random.default_rng(7)
    tiles = [_tile(np.array(c), p, rng) for c, p in zip(_ROOM_COLORS, _ROOM_PATTERNS, strict=True)]
    tiles += [_tile(np.array(box.color), box.pattern, rng) for box in _FURNITURE]
    return np.stack(tiles)


def _tile(color: np.ndarray, pattern: str, rng: np.random.Generator) -> np.ndarray:
    v, u = np.mgrid[0:_TILE_PX, 0:_TILE_PX]
    if pattern == "checks":
        tone = np.where((u // 32 + v // 32) % 2, 1.0, 0.72)
    elif pattern == "stripes":
        tone = np.where((u // 16) % 4 == rng.integers(4), 0.74, 1.0) * np.where(v % 64 < 3, 0.8, 1.0)
    elif pattern == "planks":
        shade = 0.82 + 0.18 * rng.random(8)
        tone = shade[v // 64] * np.where(v % 64 < 2, 0.6, 1.0) * np.where((u + 97 * (v // 64)) % 256 < 2, 0.7, 1.0)
    elif pattern == "wallpaper":
        dots = ((u % 64) - 32) ** 2 + ((v + 32 * (u // 64)) % 64 - 32) ** 2
        tone = np.where(dots < 70, 0.7, 1.0)
    else:
        tone = np.ones((_TILE_PX, _TILE_PX))
    grain = sum(_smooth_noise(rng, cells) for cells in (8, 32, 128))
    return (color * (tone + 0.045 * grain)[..., None]).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Periodic noise of unit variance with features of 512 / ``cells`` pixels, float64 [512, 512]."""
    coarse = np.pad(rng.standard_normal((cells, cells)), 1, mode="wrap")
    step = _TILE_PX // cells
    fine = cv2.resize(coarse, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)[step:-step, step:-step]
    return fine / fine.std()
