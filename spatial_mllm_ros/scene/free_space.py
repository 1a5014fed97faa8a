"""Which voxels a frame looks through: free space between the camera and the surfaces that it sees.

Rays go from the camera towards the surfaces, as in occupancy mapping (Moravec and Elfes, "High resolution maps
from wide angle sonar", 1985). Here they only tell what has gone, so they are careful: a voxel counts as looked through
when every pixel onto which it falls shows something at least a voxel farther away.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from spatial_mllm_ros.encoders.base import FrameGeometry
from spatial_mllm_ros.scene.voxels import coarsen, voxel_keys

_RAYS_ACROSS = 24
_MOST_STEPS = 64
_CLEARANCE = 1.5  # voxels between what is looked through and the nearest surface behind it
_REACH = math.sqrt(3)  # from a point of a voxel to its farthest corner, in edges


def looked_through(geometry: FrameGeometry, voxel_size: float, level: int) -> np.ndarray:
    """Unique keys int64 [n], ascending, of the voxels of grid ``level`` that the frame looks through.

    A sample of them: about 24 rays side by side, one step per voxel. Pixels without a point stop their rays.

    Args:
        voxel_size: edge length at level 0, unit of the scene.
    """
    edge = voxel_size * (1 << level)
    camera, pose = geometry.intrinsics, geometry.scene_from_cam
    depth = ((geometry.points_scene - pose[:3, 3].astype(np.float32)) @ pose[:3, 2].astype(np.float32)).astype(
        np.float32
    )
    known = np.isfinite(depth) & (geometry.confidence > 0)
    depth = np.where(known, depth, np.float32(0))  # unknown: nothing there is looked through
    height, width = depth.shape
    stride = max(1, round(width / _RAYS_ACROSS))
    v, u = (np.arange(stride // 2, size, stride) for size in (height, width))
    near, far = 2 * edge, float(depth.max()) - _CLEARANCE * edge
    if not far > near:
        return np.empty(0, np.int64)
    steps = np.linspace(near, far, min(_MOST_STEPS, 2 + int((far - near) / edge)))
    free = np.zeros((len(steps), len(v), len(u)), bool)
    lowest: dict[int, np.ndarray] = {}
    for index, z in enumerate(steps):
        # onto how many pixels a voxel around this point may fall, in powers of two so that few filters do
        radius = 1 << max(0, math.ceil(math.log2(max(1.0, max(camera.fx_px, camera.fy_px) * _REACH * edge / z))))
        if 2 * radius >= min(height, width):
            continue
        if radius not in lowest:
            kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
            lowest[radius] = cv2.erode(depth, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)[np.ix_(v, u)]
        free[index] = lowest[radius] > z + _CLEARANCE * edge
    step, row, column = np.nonzero(free)
    z = steps[step]
    x, y = (u[column] - camera.cx_px) / camera.fx_px * z, (v[row] - camera.cy_px) / camera.fy_px * z
    points = np.stack([x, y, z], axis=-1) @ pose[:3, :3].T + pose[:3, 3]
    return coarsen(voxel_keys(points.astype(np.float32), voxel_size), level)
