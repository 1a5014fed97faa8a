"""Where a window of jointly encoded frames lies in the scene, and in which unit of length.

An encoder such as VGGT gives each window in a frame and a scale of its own. The window is tied to the scene by the
first of these that is there: camera poses of the robot, a depth sensor, the anchors (frames of the window that are in
the scene already).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.encoders.base import Anchor, ScaleSource
from spatial_mllm_ros.errors import EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.poses import inverse_pose, rotation_angle_rad
from spatial_mllm_ros.geometry.sim3 import DegenerateAlignmentError, Sim3, fit_sim3_robust, fit_sim3_to_poses

MIN_BASELINE_M = 0.1  #: cameras closer together than this do not tell a scale: tf is good to about a centimetre
MIN_BASELINE_OVER_DEPTH = 0.02  #: the same within the window, over its median depth
MAX_POSE_MISFIT = 0.3  #: of the trajectory's spread; beyond it window and poses do not show the same motion
MAX_POSE_DRIFT_M = 0.3  #: an anchor farther than this from its robot pose was not placed by it
MAX_POSE_DRIFT_RAD = 0.2
MIN_PIXELS = 50  #: fewer readings than this are not a scale
PAIRS_PER_FRAME = 20_000
INLIER_FRACTION = 0.05  #: of the scene's extent: how far a point and its counterpart may lie apart
MIN_INLIERS = 0.3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class WindowGeometry:
    """What an encoder says of S frames, in the window's own frame and unit; all values finite.

    Attributes:
        depth: [S, h, w], along each camera's z axis.
        confidence: [S, h, w], larger is surer.
        points_window: [S, h, w, 3].
        window_from_cam: float64 [S, 4, 4].
        metric: the encoder takes its unit for the metre.
    """

    depth: np.ndarray
    confidence: np.ndarray
    points_window: np.ndarray
    window_from_cam: np.ndarray
    metric: bool = False


@dataclass(frozen=True, eq=False)
class WindowAlignment:
    """The similarity from the window to the scene, and where its unit comes from."""

    scene_from_window: Sim3
    scale_source: ScaleSource


def align_window(window: WindowGeometry, frames: Sequence[Frame], anchors: Sequence[Anchor]) -> WindowAlignment:
    """Places a window in the scene.

    A scene has one unit of length: with anchors whose unit is the model's, the window is aligned to them even if
    poses or depth would measure metres; with measured anchors, a window that cannot measure takes over their metres.
    A window without measurements, poses or anchors is in metres only where its encoder says so (``metric``).

    Args:
        window: geometry of all S frames, anchors first.
        frames: the S frames, the anchors' frames first.
        anchors: at most S of them.

    Raises:
        EncoderError: the anchors have no usable point in common with the window.
    """
    unit = ScaleSource.MODEL_METRIC if window.metric else ScaleSource.MODEL
    if anchors:
        unmeasured = [a.geometry.scale_source for a in anchors if not a.geometry.scale_source.is_measured]
        if unmeasured:
            return WindowAlignment(_to_anchors(window, anchors, None), unmeasured[0])
        unit = anchors[0].geometry.scale_source
    posed = [index for index, frame in enumerate(frames) if frame.scene_from_cam is not None]
    if anchors and not _anchors_follow_poses(anchors):
        posed = []
    moving = _to_moving_cameras(window, frames, posed)
    if moving is not None:
        return WindowAlignment(moving, ScaleSource.TF)
    scale = _scale_from_sensor_depth(window, frames)
    if scale is None and anchors:
        return WindowAlignment(_to_anchors(window, anchors, None), unit)
    if scale is not None and anchors and not posed:
        return WindowAlignment(_to_anchors(window, anchors, scale), ScaleSource.DEPTH)
    source = unit if scale is None else ScaleSource.DEPTH
    factor = 1.0 if scale is None else scale
    if posed:
        return WindowAlignment(
            fit_sim3_to_poses(_poses(frames, posed), window.window_from_cam[posed], scale=factor), source
        )
    first_cam_from_window = inverse_pose(window.window_from_cam[0])
    return WindowAlignment(Sim3(factor, first_cam_from_window[:3, :3], factor * first_cam_from_window[:3, 3]), source)


def _poses(frames: Sequence[Frame], indices: Sequence[int]) -> np.ndarray:
    return np.array([frames[index].scene_from_cam for index in indices], dtype=np.float64).reshape(-1, 4, 4)


def _anchors_follow_poses(anchors: Sequence[Anchor]) -> bool:
    """Whether the scene lies in the frame of the robot's poses; not so if these came later, or jumped."""
    posed = [anchor for anchor in anchors if anchor.frame.scene_from_cam is not None]
    if not posed:
        return False
    told = _poses([anchor.frame for anchor in posed], range(len(posed)))
    difference = inverse_pose(told) @ np.array([anchor.geometry.scene_from_cam for anchor in posed])
    apart_m = np.linalg.norm(difference[:, :3, 3], axis=1)
    return bool(
        (apart_m <= MAX_POSE_DRIFT_M).all() and (rotation_angle_rad(difference[:, :3, :3]) <= MAX_POSE_DRIFT_RAD).all()
    )


def _to_moving_cameras(window: WindowGeometry, frames: Sequence[Frame], posed: Sequence[int]) -> Sim3 | None:
    """The similarity by the robot's poses, or None where the cameras hardly moved or the motions differ."""
    if len(posed) < 2:
        return None
    told, seen = _poses(frames, posed), window.window_from_cam[posed]
    depth = float(np.median(window.depth[posed]))
    if _extent(told[:, :3, 3]) < MIN_BASELINE_M or _extent(seen[:, :3, 3]) < MIN_BASELINE_OVER_DEPTH * depth:
        return None
    try:
        sim3 = fit_sim3_to_poses(told, seen)
    except DegenerateAlignmentError as error:
        logger.info("The window's camera motion does not fit the robot's poses: %s", error)
        return None
    centres = told[:, :3, 3]
    misfit = np.linalg.norm(sim3.apply(seen[:, :3, 3]) - centres) / np.linalg.norm(centres - centres.mean(axis=0))
    if misfit > MAX_POSE_MISFIT:
        logger.info("The window's camera motion differs from the robot's poses by %.0f %%; not used.", 100 * misfit)
        return None
    return sim3


def _extent(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[:, None] - points[None], axis=-1).max())


def _stride(rows: int, columns: int) -> int:
    return max(1, int(np.ceil(np.sqrt(rows * columns / PAIRS_PER_FRAME))))


def _same_pixels(count: int, other_count: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Every ``stride``-th index of an axis and, for each, the index of another axis over the same field of view."""
    index = np.arange(stride // 2, count, stride)
    return index, np.minimum(((index + 0.5) * other_count / count).astype(np.int64), other_count - 1)


def _median_ratio(measured: Sequence[np.ndarray], seen: Sequence[np.ndarray]) -> float | None:
    if not measured:
        return None
    over, under = np.concatenate(measured), np.concatenate(seen)
    usable = np.isfinite(over) & (over > 0) & (under > 0)
    if np.count_nonzero(usable) < MIN_PIXELS:
        return None
    return float(np.median(over[usable] / under[usable]))


def _scale_from_sensor_depth(window: WindowGeometry, frames: Sequence[Frame]) -> float | None:
    """Metres per unit of the window: the median over the surer half of each frame's pixels; None without readings."""
    measured, seen = [], []
    for index, frame in enumerate(frames):
        if frame.depth_m is None:
            continue
        depth, confidence = window.depth[index], window.confidence[index]
        stride = _stride(*depth.shape)
        rows, sensor_rows = _same_pixels(depth.shape[0], frame.depth_m.shape[0], stride)
        columns, sensor_columns = _same_pixels(depth.shape[1], frame.depth_m.shape[1], stride)
        sure = confidence[np.ix_(rows, columns)] >= np.median(confidence)
        measured.append(frame.depth_m[np.ix_(sensor_rows, sensor_columns)][sure].astype(np.float64))
        seen.append(depth[np.ix_(rows, columns)][sure].astype(np.float64))
    return _median_ratio(measured, seen)


@dataclass(frozen=True, eq=False)
class _AnchorPairs:
    """Same-pixel points of one anchor, in the scene and in the window."""

    points_scene: np.ndarray
    points_window: np.ndarray
    weight: np.ndarray
    depth_scene: np.ndarray
    depth_window: np.ndarray


def _pairs_of(window: WindowGeometry, index: int, anchor: Anchor) -> _AnchorPairs:
    points_scene, confidence = anchor.geometry.points_scene, anchor.geometry.confidence
    stride = _stride(*confidence.shape)
    rows, window_rows = _same_pixels(confidence.shape[0], window.depth.shape[1], stride)
    columns, window_columns = _same_pixels(confidence.shape[1], window.depth.shape[2], stride)
    here, there = np.ix_(rows, columns), np.ix_(window_rows, window_columns)
    usable = np.isfinite(points_scene[here]).all(axis=-1) & (confidence[here] > 0)
    scene = points_scene[here][usable].astype(np.float64)
    sure_scene, sure_window = confidence[here][usable], window.confidence[index][there][usable]
    cam_from_scene = inverse_pose(anchor.geometry.scene_from_cam)
    return _AnchorPairs(
        points_scene=scene,
        points_window=window.points_window[index][there][usable].astype(np.float64),
        # Confidences of two encoders have no common scale, and their tails are heavy.
        weight=_relative(sure_scene) * _relative(sure_window),
        depth_scene=scene @ cam_from_scene[2, :3] + cam_from_scene[2, 3],
        depth_window=window.depth[index][there][usable].astype(np.float64),
    )


def _relative(confidence: np.ndarray) -> np.ndarray:
    if confidence.size == 0:
        return confidence
    return np.clip(confidence.astype(np.float64) / np.median(confidence), 0.0, 3.0)


def _to_anchors(window: WindowGeometry, anchors: Sequence[Anchor], scale: float | None) -> Sim3:
    """By the points that the anchors' pixels have in the scene and in the window; ``scale`` if it is known."""
    pairs = [_pairs_of(window, index, anchor) for index, anchor in enumerate(anchors)]
    target = np.concatenate([pair.points_scene for pair in pairs])
    if len(target) >= MIN_PIXELS:
        extent = float(np.median(np.linalg.norm(target - np.median(target, axis=0), axis=1)))
        try:
            fit = fit_sim3_robust(
                np.concatenate([pair.points_window for pair in pairs]),
                target,
                np.concatenate([pair.weight for pair in pairs]),
                inlier_distance=max(INLIER_FRACTION * extent, np.finfo(np.float64).tiny),
                scale=scale,
            )
        except DegenerateAlignmentError as error:
            logger.info("The anchors' points do not place the window: %s", error)
        else:
            if fit.inlier_fraction >= MIN_INLIERS:
                return fit.sim3
            logger.info("Only %.0f %% of the anchors' points fit the window.", 100 * fit.inlier_fraction)
    if scale is None:
        scale = _median_ratio([pair.depth_scene for pair in pairs], [pair.depth_window for pair in pairs])
    if scale is None:
        raise EncoderError(
            f"The {len(anchors)} anchor frames have fewer than {MIN_PIXELS} points in common with the window, so it "
            "cannot be placed in the scene. Choose anchors that show points, or start a new scene."
        )
    told = np.array([anchor.geometry.scene_from_cam for anchor in anchors])
    return fit_sim3_to_poses(told, window.window_from_cam[: len(anchors)], scale=scale)
