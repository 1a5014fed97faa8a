"""A simulated VGGT: true geometry with noise, every window in a frame and a unit of its own, as VGGT gives it.

It measures what windows cost where there are no trained weights: how well anchors join windows, and how errors of a
stated size add up. It says nothing about the size of VGGT's errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.encoders.window_alignment import WindowGeometry, align_window
from spatial_mllm_ros.errors import ConfigurationError, EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import matrix_from_quaternion
from spatial_mllm_ros.geometry.sim3 import Sim3
from spatial_mllm_ros.geometry.unprojection import to_scene, unproject_depth


@dataclass(frozen=True, eq=False)
class TrueView:
    """The true geometry of a frame: depth float32 [h, w] in metres (NaN: none), its camera, its pose float64 [4, 4]."""

    depth_m: np.ndarray
    intrinsics: Intrinsics
    scene_from_cam: np.ndarray


@dataclass(frozen=True)
class SimulatedNoise:
    """Errors of every frame of every window, drawn anew in each window. All are standard deviations.

    Attributes:
        rotation_deg: of the camera, about a random axis.
        translation: of the camera's centre, over the median depth of the window.
        depth_scale: of a factor on all depths of a frame.
        depth: of factors on single depths, smooth over about an eighth of the picture.
        outliers: share of pixels, in patches, whose depth is wrong by a factor of 0.3 to 3.
    """

    rotation_deg: float = 0.3
    translation: float = 0.005
    depth_scale: float = 0.01
    depth: float = 0.02
    outliers: float = 0.05

    def __post_init__(self) -> None:
        for name in ("rotation_deg", "translation", "depth_scale", "depth", "outliers"):
            if not 0 <= getattr(self, name) < 100:
                raise ConfigurationError(f"SimulatedNoise.{name} is {getattr(self, name)}; it must be 0 or more.")


class SimulatedVggt:
    """A ``GeometryEncoder`` with the windows, anchors and alignment of ``VggtGeometryEncoder``.

    Args:
        views: stamp -> true geometry of the frame.
        noise: added to it.
        seed: of the noise and of each window's own frame and unit.
    """

    name = "simulated-vggt"

    def __init__(
        self,
        views: Mapping[int, TrueView],
        noise: SimulatedNoise,
        *,
        window_size: int = 6,
        anchor_count: int = 2,
        seed: int = 0,
    ) -> None:
        self.window_size, self.anchor_count = window_size, anchor_count
        self._views, self._noise = views, noise
        self._random = np.random.default_rng(seed)

    def encode(self, frames: Sequence[Frame], anchors: Sequence[Anchor]) -> list[FrameGeometry]:
        """See ``GeometryEncoder``.

        Raises:
            EncoderError: there is no true view of a frame, or the anchors do not place the window.
        """
        anchors = anchors[: self.anchor_count]
        together = [*(anchor.frame for anchor in anchors), *frames]
        unknown = [frame.stamp_ns for frame in together if frame.stamp_ns not in self._views]
        if unknown:
            raise EncoderError(f"The simulated VGGT has no true view of the frames {unknown} ns.")
        views = [self._views[frame.stamp_ns] for frame in together]
        window = self._window(views)
        alignment = align_window(window, together, anchors)
        return [
            FrameGeometry(
                alignment.scene_from_window.apply(window.points_window[i]).astype(np.float32),
                window.confidence[i],
                alignment.scene_from_window.apply_to_pose(window.window_from_cam[i]),
                views[i].intrinsics,
                ScaleSource(alignment.scale_source),
            )
            for i in range(len(anchors), len(together))
        ]

    def _window(self, views: Sequence[TrueView]) -> WindowGeometry:
        random, noise = self._random, self._noise
        window_from_truth = Sim3(
            random.uniform(0.2, 0.6), matrix_from_quaternion(random.normal(size=4)), random.normal(size=3)
        )
        middle_m = float(np.nanmedian([np.nanmedian(view.depth_m) for view in views]))
        depths, confidences, points, poses = [], [], [], []
        for view in views:
            known = np.isfinite(view.depth_m) & (view.depth_m > 0)
            depth = np.where(known, view.depth_m, middle_m) * (1 + noise.depth_scale * random.normal())
            depth = depth * (1 + noise.depth * _smooth(random, depth.shape, 8))
            wrong = _smooth(random, depth.shape, 16)
            wrong = wrong > np.quantile(wrong, 1 - noise.outliers) if noise.outliers else np.zeros(depth.shape, bool)
            depth = np.where(wrong, depth * np.exp(random.uniform(np.log(0.3), np.log(3.0))), depth)
            pose = np.array(view.scene_from_cam, np.float64)
            pose[:3, :3] = pose[:3, :3] @ _small_turn(random, np.deg2rad(noise.rotation_deg))
            pose[:3, 3] += noise.translation * middle_m * random.normal(size=3)
            window_from_cam = window_from_truth.apply_to_pose(pose)
            depth = (window_from_truth.scale * depth).astype(np.float32)
            depths.append(depth)
            confidences.append(known.astype(np.float32))
            points.append(to_scene(unproject_depth(depth, view.intrinsics), window_from_cam))
            poses.append(window_from_cam)
        return WindowGeometry(np.stack(depths), np.stack(confidences), np.stack(points), np.stack(poses))


def _smooth(random: np.random.Generator, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """A field of about unit variance that changes over 1/``cells`` of the picture."""
    coarse = random.normal(size=(cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def _small_turn(random: np.random.Generator, sigma_rad: float) -> np.ndarray:
    axis = random.normal(size=3) * sigma_rad / 2
    return matrix_from_quaternion(np.array([*axis, 1.0]))
