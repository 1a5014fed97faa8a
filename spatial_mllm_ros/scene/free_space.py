"""Which voxels a frame sees through: free space between the camera and the surfaces that it sees.

Rays go from the camera towards the surfaces, as in occupancy mapping (Moravec and Elfes, "High resolution maps from
wide angle sonar", 1985). Here they only clear voxels, so they are careful: a voxel counts as seen through when every
pixel onto which it may fall shows something that is farther away than all of the voxel by half a voxel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from spatial_mllm_ros.encoders.base import FrameGeometry
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.scene.voxels import voxel_centres, voxel_keys_at

_RAYS_ACROSS = 24
_MOST_STEPS = 64
_HALF_DIAGONAL = math.sqrt(3) / 2  # of a voxel, in edges
_CLEARANCE = _HALF_DIAGONAL + 0.5  # from a voxel's centre to the nearest surface behind it, in edges


def seen_through(
    geometry: FrameGeometry, voxel_size: float, level: int, occupied: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Unique keys int64 [n] of the occupied voxels of grid ``level`` that the frame sees through.

    Voxels are looked for along about 24 rays side by side, in steps of a voxel; a voxel that falls between two rays of
    one frame is met by a ray of a later one. Pixels without a point are taken to be near.

    Args:
        voxel_size: edge length at level 0, unit of the scene.
        occupied: of unique keys at ``level`` those in which a frame has seen a surface.
    """
    edge = voxel_size * (1 << level)
    camera, pose = geometry.intrinsics, geometry.scene_from_cam
    depth = (geometry.points_scene - pose[:3, 3].astype(np.float32)) @ pose[:3, 2].astype(np.float32)
    depth = np.where(np.isfinite(depth) & (geometry.confidence > 0), depth, 0).astype(np.float32)
    keys = occupied(_along_rays(depth, camera, pose, voxel_size, level))
    centres_cam = (voxel_centres(keys, voxel_size, level) - pose[:3, 3]) @ pose[:3, :3]
    return keys[_clear(depth, camera, centres_cam, edge)]


def _along_rays(
    depth: np.ndarray, camera: Intrinsics, scene_from_cam: np.ndarray, voxel_size: float, level: int
) -> np.ndarray:
    """Keys of voxels before the surfaces, float32 depth [h, w]."""
    edge = voxel_size * (1 << level)
    height, width = depth.shape
    stride = max(1, round(width / _RAYS_ACROSS))
    v, u = (np.arange(stride // 2, size, stride) for size in (height, width))
    reach = depth[np.ix_(v, u)] - _HALF_DIAGONAL * edge
    near, far = edge, float(reach.max(initial=0.0))
    if not far > near:
        return np.empty(0, np.int64)
    steps = np.linspace(near, far, min(_MOST_STEPS, 2 + int((far - near) / edge)), dtype=np.float32)
    step, row, column = np.nonzero(reach[None] > steps[:, None, None])
    z = steps[step]
    across, down = (u - camera.cx_px) / camera.fx_px, (v - camera.cy_px) / camera.fy_px
    x, y = across.astype(np.float32)[column] * z, down.astype(np.float32)[row] * z
    points = np.stack([x, y, z], axis=-1) @ scene_from_cam[:3, :3].T.astype(np.float32)
    return voxel_keys_at(points + scene_from_cam[:3, 3].astype(np.float32), voxel_size, level)


def _clear(depth: np.ndarray, camera: Intrinsics, centres_cam: np.ndarray, edge: float) -> np.ndarray:
    """Which voxels, by their centres [n, 3], have nothing at or before them in any pixel that they may fall on."""
    height, width = depth.shape
    x, y, z = centres_cam.T
    clear = np.zeros(len(z), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = np.rint(camera.fx_px * x / z + camera.cx_px), np.rint(camera.fy_px * y / z + camera.cy_px)
        radius = max(camera.fx_px, camera.fy_px) * _HALF_DIAGONAL * edge / (z - _HALF_DIAGONAL * edge)
    inside = (z > 2 * edge) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    # in powers of two, so that few filters do for all
    power = np.ceil(np.log2(np.clip(radius, 1, max(height, width)), where=inside, out=np.full(len(z), np.inf)))
    for exponent in np.unique(power[inside]).astype(int):
        kernel = np.ones((2 ** (exponent + 1) + 1,) * 2, np.uint8)
        lowest = cv2.erode(depth, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        these = inside & (power == exponent)
        nearest = lowest[v[these].astype(int), u[these].astype(int)]
        clear[these] = nearest > z[these] + _CLEARANCE * edge
    return clear
