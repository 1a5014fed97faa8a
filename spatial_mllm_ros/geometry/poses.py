"""Rigid poses and their conventions.

``b_from_a`` takes points of frame a to frame b. Cameras have OpenCV axes (x right, y down, z forward). Quaternions are
x, y, z, w, as in ROS. VGGT speaks of ``cam_from_world``, ROS and the rest of this package of ``scene_from_cam``:
``inverse_pose`` is the way from one to the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def matrix_from_quaternion(quaternion_xyzw: np.ndarray) -> np.ndarray:
    """Rotation matrices of quaternions of any length but zero.

    Args:
        quaternion_xyzw: [..., 4], x y z w.

    Returns:
        float64 [..., 3, 3]; NaN where the quaternion is zero or not finite.
    """
    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y, z, w = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions of rotation matrices; for a matrix that is only nearly a rotation, of the nearest one.

    Method: Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000, version 3.

    Args:
        rotation: [..., 3, 3], finite.

    Returns:
        float64 [..., 4], x y z w, w >= 0.
    """
    r = np.asarray(rotation, dtype=np.float64)
    k = np.empty((*r.shape[:-2], 4, 4))
    k[..., :3, :3] = r + np.swapaxes(r, -1, -2)
    trace = np.trace(r, axis1=-2, axis2=-1)
    k[..., range(3), range(3)] -= trace[..., None]
    k[..., :3, 3] = np.stack(
        (r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]), -1
    )
    k[..., 3, :3] = k[..., :3, 3]
    k[..., 3, 3] = trace
    quaternion = np.linalg.eigh(k)[1][..., -1]  # eigenvector of the largest eigenvalue
    return np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation closest to a [3, 3] matrix in the Frobenius norm, float64, determinant +1."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    return u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt


def inverse_pose(b_from_a: np.ndarray) -> np.ndarray:
    """``a_from_b`` of rigid transformations: [..., 4, 4] or [..., 3, 4] -> float64 [..., 4, 4]."""
    pose = np.asarray(b_from_a, dtype=np.float64)
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverse = np.zeros((*pose.shape[:-2], 4, 4))
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -rotation @ pose[..., :3, 3:]
    inverse[..., 3, 3] = 1.0
    return inverse


def rotation_angle_rad(rotation: np.ndarray) -> np.ndarray:
    """Angles of rotation matrices [..., 3, 3], radians in [0, pi]."""
    rotation = np.asarray(rotation, dtype=np.float64)
    sine = np.stack([rotation[..., i, j] - rotation[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], axis=-1)
    cosine = np.trace(rotation, axis1=-2, axis2=-1) - 1.0
    return np.arctan2(np.linalg.norm(sine, axis=-1), cosine)


class VggtCameras(NamedTuple):
    """Cameras as VGGT gives them."""

    cam_from_world: np.ndarray  #: float64 [..., 3, 4], lengths without metric scale
    intrinsics: np.ndarray  #: float64 [..., 3, 3], pixels


def cameras_from_vggt_pose_encoding(pose_encoding: np.ndarray, *, width_px: int, height_px: int) -> VggtCameras:
    """VGGT's nine numbers per frame to camera matrices (VGGT, section 3.1).

    Args:
        pose_encoding: [..., 9]: translation and quaternion x y z w of cam_from_world, then vertical and horizontal
            field of view in radians.
        width_px, height_px: size of the image for which the intrinsics are wanted.

    Returns:
        The principal point is at (width / 2, height / 2), where VGGT puts it for points of whole pixel indices. A
        field of view of 0 gives an infinite focal length.
    """
    encoding = np.asarray(pose_encoding, dtype=np.float64)
    cam_from_world = np.concatenate((matrix_from_quaternion(encoding[..., 3:7]), encoding[..., :3, None]), axis=-1)
    intrinsics = np.zeros((*encoding.shape[:-1], 3, 3))
    with np.errstate(divide="ignore"):
        intrinsics[..., 0, 0] = width_px / 2 / np.tan(encoding[..., 8] / 2)
        intrinsics[..., 1, 1] = height_px / 2 / np.tan(encoding[..., 7] / 2)
    intrinsics[..., 0, 2] = width_px / 2
    intrinsics[..., 1, 2] = height_px / 2
    intrinsics[..., 2, 2] = 1.0
    return VggtCameras(cam_from_world, intrinsics)
