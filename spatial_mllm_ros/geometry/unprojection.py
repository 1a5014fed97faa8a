"""Depth images to points, in OpenCV camera axes (x right, y down, z forward), and points to the scene frame."""

from __future__ import annotations

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.cameras import Intrinsics


def sampled_intrinsics(intrinsics: Intrinsics, pixel_stride: int) -> Intrinsics:
    """The camera of every n-th pixel: its pixel (j, i) is pixel (stride * j, stride * i) of ``intrinsics``.

    This is not ``Intrinsics.resized``, whose pixels are averages and therefore sit at other positions.
    """
    if pixel_stride < 1:
        raise ConfigurationError(f"pixel_stride is {pixel_stride}; it must be at least 1.")
    return Intrinsics(
        fx_px=intrinsics.fx_px / pixel_stride,
        fy_px=intrinsics.fy_px / pixel_stride,
        cx_px=intrinsics.cx_px / pixel_stride,
        cy_px=intrinsics.cy_px / pixel_stride,
        width_px=-(-intrinsics.width_px // pixel_stride),
        height_px=-(-intrinsics.height_px // pixel_stride),
    )


def unproject_depth(depth_m: np.ndarray, intrinsics: Intrinsics, pixel_stride: int = 1) -> np.ndarray:
    """Points of every ``pixel_stride``-th pixel of a depth image, in the camera frame.

    Args:
        depth_m: float32 [h, w], metres along z (not along the ray); NaN where there is none.
        intrinsics: the camera for an image of w x h.

    Returns:
        float32 [ceil(h / stride), ceil(w / stride), 3], metres; NaN where the depth is NaN:
        x = (u - cx) / fx * d, y = (v - cy) / fy * d, z = d (Hartley and Zisserman, Multiple View Geometry, 6.1).

    Raises:
        ConfigurationError: the intrinsics are for another size, or the stride is below 1.
    """
    height_px, width_px = depth_m.shape
    if (intrinsics.height_px, intrinsics.width_px) != (height_px, width_px):
        raise ConfigurationError(
            f"The intrinsics are for {intrinsics.width_px}x{intrinsics.height_px} pixels but the depth image has "
            f"{width_px}x{height_px}; scale them with Intrinsics.resized first."
        )
    if pixel_stride < 1:
        raise ConfigurationError(f"pixel_stride is {pixel_stride}; it must be at least 1.")
    z = depth_m[::pixel_stride, ::pixel_stride].astype(np.float32, copy=False)
    u = np.arange(0, width_px, pixel_stride, dtype=np.float32)
    v = np.arange(0, height_px, pixel_stride, dtype=np.float32)[:, None]
    points_cam = np.empty((*z.shape, 3), np.float32)
    points_cam[..., 0] = (u - np.float32(intrinsics.cx_px)) / np.float32(intrinsics.fx_px) * z
    points_cam[..., 1] = (v - np.float32(intrinsics.cy_px)) / np.float32(intrinsics.fy_px) * z
    points_cam[..., 2] = z
    return points_cam


def to_scene(points_cam: np.ndarray, scene_from_cam: np.ndarray) -> np.ndarray:
    """Points [..., 3] of the camera frame in the scene frame, float32: R p + t, computed in float64.

    Args:
        scene_from_cam: [4, 4], camera-to-scene.
    """
    pose = np.asarray(scene_from_cam, np.float64)
    flat = points_cam.reshape(-1, 3).astype(np.float64)
    return (flat @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32).reshape(points_cam.shape)
