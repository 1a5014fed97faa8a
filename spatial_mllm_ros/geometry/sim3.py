"""Similarities (rotation, translation and one scale) between point sets and between trajectories.

Everything here is deterministic: no random sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.geometry.poses import nearest_rotation

ANNEALING_STEP = 2.0  #: by how much the robust fit sharpens per iteration
FINAL_ITERATIONS = 5


class DegenerateAlignmentError(SpatialMllmError):
    """The points or poses do not determine the similarity asked for."""

    code = "DEGENERATE_ALIGNMENT"


@dataclass(frozen=True, eq=False)
class Sim3:
    """x_b = scale * rotation @ x_a + translation."""

    scale: float
    rotation: np.ndarray  #: float64 [3, 3]
    translation: np.ndarray  #: float64 [3], in the unit of b

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points of a, [..., 3] -> points of b, float64 [..., 3]; NaN stays NaN."""
        return np.asarray(points, dtype=np.float64) @ (self.scale * self.rotation).T + self.translation

    def apply_to_pose(self, a_from_cam: np.ndarray) -> np.ndarray:
        """Camera poses in a, [..., 4, 4] -> rigid camera poses in b, float64 [..., 4, 4].

        The scale moves the camera but does not enter its rotation: a depth of the camera has to be multiplied by it.
        """
        pose = np.array(a_from_cam, dtype=np.float64)
        pose[..., :3, 3] = self.apply(pose[..., :3, 3])
        pose[..., :3, :3] = self.rotation @ pose[..., :3, :3]
        return pose


def fit_sim3(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None, *, scale: float | None = None
) -> Sim3:
    """The similarity that takes ``source`` to ``target`` with the least weighted squared distance.

    Method: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991.

    Args:
        source, target: [N, 3], finite, point i of one is point i of the other.
        weights: [N], >= 0; None means equal weights.
        scale: the scale, if it is known; None estimates it.

    Raises:
        DegenerateAlignmentError: fewer than three points with weight, or all on one line.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    w = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = w.sum()
    if np.count_nonzero(w) < 3 or not (np.isfinite(total) and total > 0):
        raise DegenerateAlignmentError(
            f"{np.count_nonzero(w)} of {len(source)} point pairs have weight; a similarity needs at least 3."
        )
    w = w / total
    source_mean, target_mean = w @ source, w @ target
    a, b = source - source_mean, target - target_mean
    spread = np.linalg.eigvalsh((a * w[:, None]).T @ a)  # ascending
    if spread[1] <= 1e-9 * spread[2] or spread[2] <= 0:
        raise DegenerateAlignmentError(
            f"The {len(source)} points lie on a line or in one place (variances {spread.tolist()}), which leaves the "
            "rotation open."
        )
    u, singular, vt = np.linalg.svd((b * w[:, None]).T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])  # a reflection is not a motion
    rotation = (u * signs) @ vt
    factor = float(singular @ signs / spread.sum()) if scale is None else float(scale)
    if not (np.isfinite(factor) and factor > 0):
        raise DegenerateAlignmentError(f"The best scale between the point sets is {factor}; it must be above 0.")
    return Sim3(factor, rotation, target_mean - factor * rotation @ source_mean)


@dataclass(frozen=True, eq=False)
class RobustFit:
    """A similarity and how well it explains the points."""

    sim3: Sim3
    inlier_fraction: float  #: share of the given weight that lies within the inlier distance


def fit_sim3_robust(
    source: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    inlier_distance: float,
    scale: float | None = None,
) -> RobustFit:
    """``fit_sim3`` that outliers, also many and one-sided ones, do not pull away.

    Method: graduated non-convexity with the Geman-McClure loss (Yang et al., "Graduated Non-Convexity for Robust
    Spatial Perception", 2020): from nearly least squares, where no start value is needed, to a loss that ignores what
    is far beyond ``inlier_distance``.

    Args:
        inlier_distance: how far a good pair may lie apart, in the unit of ``target``; > 0.

    Raises:
        DegenerateAlignmentError: the points do not determine a similarity.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    prior = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    sim3 = fit_sim3(source, target, prior, scale=scale)
    squared = ((sim3.apply(source) - target) ** 2).sum(axis=1)
    limit = inlier_distance**2
    sharpness = max(2 * float(squared.max()) / limit, 1.0)
    finishing = 0
    while finishing < FINAL_ITERATIONS:
        softness = sharpness * limit
        sim3 = fit_sim3(source, target, prior * (softness / (squared + softness)) ** 2, scale=scale)
        squared = ((sim3.apply(source) - target) ** 2).sum(axis=1)
        finishing += sharpness == 1.0
        sharpness = max(sharpness / ANNEALING_STEP, 1.0)
    inliers = prior * (squared <= limit)
    return RobustFit(sim3, float(inliers.sum() / prior.sum()))


def fit_sim3_to_poses(b_from_cam: np.ndarray, a_from_cam: np.ndarray, *, scale: float | None = None) -> Sim3:
    """The similarity from a to b by the poses of the same cameras in both.

    The rotation comes from the orientations, so a straight or missing trajectory is no difficulty for it; the scale
    from the camera centres, which must then differ.

    Args:
        b_from_cam, a_from_cam: [N, 4, 4], N >= 1.
        scale: the scale, if it is known; None estimates it.

    Raises:
        DegenerateAlignmentError: the scale is asked for but the cameras stand in one place, or move in ways that no
            positive scale explains.
    """
    b, a = np.asarray(b_from_cam, dtype=np.float64), np.asarray(a_from_cam, dtype=np.float64)
    rotation = nearest_rotation((b[:, :3, :3] @ np.swapaxes(a[:, :3, :3], 1, 2)).sum(axis=0))
    b_mean, a_mean = b[:, :3, 3].mean(axis=0), a[:, :3, 3].mean(axis=0)
    if scale is None:
        moved_b, moved_a = b[:, :3, 3] - b_mean, (a[:, :3, 3] - a_mean) @ rotation.T
        spread = float((moved_a**2).sum())
        factor = float((moved_a * moved_b).sum()) / spread if spread > 0 else 0.0
        if not (np.isfinite(factor) and factor > 0):
            raise DegenerateAlignmentError(
                f"The {len(a)} camera centres do not tell the scale (spread {spread:.3g}, best scale {factor:.3g})."
            )
    else:
        factor = float(scale)
    return Sim3(factor, rotation, b_mean - factor * rotation @ a_mean)
