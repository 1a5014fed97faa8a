"""Geometry from VGGT, window by window, in one scene frame."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from enum import Enum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.encoders.window_alignment import WindowAlignment, WindowGeometry, align_window
from spatial_mllm_ros.errors import ConfigurationError, EncoderError, EngineError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import cameras_from_vggt_pose_encoding, inverse_pose
from spatial_mllm_ros.geometry.unprojection import to_scene, unproject_depth
from spatial_mllm_ros.models.vggt import VggtOutput, VggtPrediction

PATCH_SIZE_PX = 14


class PointSource(str, Enum):
    """Which head the points come from."""

    DEPTH = "depth"  #: unprojected depth, as the paper prefers
    POINTS = "points"  #: the point head, as the official frame sampler does


class VggtPredictor(Protocol):
    """A VGGT, or anything that answers like one."""

    def __call__(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """Images [1, S, 3, H, W] in [0, 1] -> the outputs asked for; see ``VGGT.forward``."""
        ...


def network_size(width_px: int, height_px: int, *, long_side_px: int) -> tuple[int, int]:
    """(width, height) for the network: the longer side given, the aspect kept to the nearest multiple of 14."""
    scale = long_side_px / max(width_px, height_px)
    width, height = (
        max(PATCH_SIZE_PX, round(side * scale / PATCH_SIZE_PX) * PATCH_SIZE_PX) for side in (width_px, height_px)
    )
    return width, height


class VggtGeometryEncoder:
    """Encodes a few anchors and up to ``window_size`` new frames jointly and places the result in the scene.

    Attention over one window is an approximation of VGGT over all frames at once. The anchors come first in the pass,
    so that the first of them is VGGT's reference frame; with one fixed first anchor, windows share their reference.

    Args:
        model: a ``VGGT`` in the precision wanted (see ``VGGT.cast_aggregator``), already on ``device``.
        device: where the images go.
        image_width_px: width of a landscape frame (height of a portrait one) as the network sees it, multiple of 14.
        window_size: most new frames per call.
        anchor_count: most anchors per call; of more, the first are used.
        points: which head gives the points.
        unit_m: metres that the model calls 1, where its weights were trained to a metric scale; None: lengths of a
            scene that nothing else measures are relative.
    """

    name = "torch-vggt"

    def __init__(
        self,
        model: VggtPredictor,
        *,
        device: torch.device | str,
        image_width_px: int = 518,
        window_size: int = 6,
        anchor_count: int = 2,
        points: PointSource | str = PointSource.DEPTH,
        unit_m: float | None = None,
    ) -> None:
        if image_width_px < PATCH_SIZE_PX or image_width_px % PATCH_SIZE_PX:
            raise ConfigurationError(
                f"image_width_px is {image_width_px}; it must be a multiple of {PATCH_SIZE_PX}, such as 518."
            )
        if window_size < 1:
            raise ConfigurationError(f"window_size is {window_size}; it must be at least 1.")
        if anchor_count < 0:
            raise ConfigurationError(f"anchor_count is {anchor_count}; it must be 0 or above.")
        try:
            self._points = PointSource(points)
        except ValueError:
            raise ConfigurationError(f"points is {points!r}; it must be 'depth' or 'points'.") from None
        if unit_m is not None and not 0 < unit_m < math.inf:
            raise ConfigurationError(f"unit_m is {unit_m}; it must be finite and above 0, or None for no metric scale.")
        self._model = model
        self._unit_m = unit_m
        self._device = torch.device(device)
        self._long_side_px = image_width_px
        self.window_size = window_size
        self.anchor_count = anchor_count

    def encode(self, frames: Sequence[Frame], anchors: Sequence[Anchor]) -> list[FrameGeometry]:
        """Geometry of ``frames`` in the scene of ``anchors``; see ``GeometryEncoder``.

        The scene frame of a first window is that of the frames' poses, or else the first frame's camera.

        Raises:
            EncoderError: no frame or too many, frames whose images differ in shape, VGGT failed or gave values that
                are not finite, or the anchors do not place the window.
        """
        if not 1 <= len(frames) <= self.window_size:
            raise EncoderError(f"A window of {len(frames)} frames was given; it must have 1 to {self.window_size}.")
        anchors = anchors[: self.anchor_count]
        together = [*(anchor.frame for anchor in anchors), *frames]
        width, height = self._common_size(together)
        window, intrinsics = self._predict(together, width, height)
        alignment = align_window(window, together, anchors)
        return [_in_scene(window, index, intrinsics[index], alignment) for index in range(len(anchors), len(together))]

    def _common_size(self, frames: Sequence[Frame]) -> tuple[int, int]:
        sizes = [
            network_size(frame.rgb.shape[1], frame.rgb.shape[0], long_side_px=self._long_side_px) for frame in frames
        ]
        for frame, size in zip(frames, sizes, strict=True):
            if size != sizes[0]:
                first = frames[0]
                raise EncoderError(
                    f"Frames of one window differ in shape: {first.rgb.shape[1]}x{first.rgb.shape[0]} px at "
                    f"{first.stamp_ns} ns and {frame.rgb.shape[1]}x{frame.rgb.shape[0]} px at {frame.stamp_ns} ns. "
                    "Encode them in separate windows, or start a new scene after the camera mode changed."
                )
        return sizes[0]

    def _predict(
        self, frames: Sequence[Frame], width_px: int, height_px: int
    ) -> tuple[WindowGeometry, list[Intrinsics]]:
        dense = VggtOutput.DEPTH if self._points is PointSource.DEPTH else VggtOutput.POINTS
        try:
            with torch.inference_mode():
                images = torch.stack([self._image(frame, width_px, height_px) for frame in frames])
                prediction = self._model(images[None], frozenset((VggtOutput.POSE, dense)))
                pose_encoding = _array(prediction.pose_encoding)
                values = _array(prediction.depth if dense is VggtOutput.DEPTH else prediction.points_world)
                confidence = _array(
                    prediction.depth_confidence if dense is VggtOutput.DEPTH else prediction.points_confidence
                )
        except (RuntimeError, EngineError) as error:  # torch's out-of-memory errors are RuntimeErrors too
            raise EncoderError(
                f"VGGT failed on {len(frames)} frames of {width_px}x{height_px} px: {error}. If memory ran out, use a "
                "smaller window, fewer anchors or a smaller image_width_px."
            ) from error
        for name, array in (("camera", pose_encoding), (dense.value, values), ("confidence", confidence)):
            for frame, of_frame in zip(frames, array, strict=True):
                if not np.isfinite(of_frame).all():
                    raise EncoderError(
                        f"VGGT's {name} output for the frame at {frame.stamp_ns} ns has values that are not finite. "
                        "Run the aggregator in bfloat16 or float32 rather than float16, and check the weights."
                    )
        cameras = cameras_from_vggt_pose_encoding(pose_encoding, width_px=width_px, height_px=height_px)
        window_from_cam = inverse_pose(cameras.cam_from_world)
        intrinsics = [
            _intrinsics(matrix, frame, width_px, height_px)
            for matrix, frame in zip(cameras.intrinsics, frames, strict=True)
        ]
        if not np.isfinite(window_from_cam).all():
            raise EncoderError("VGGT gave a camera rotation of length zero; check the weights.")
        if dense is VggtOutput.DEPTH:
            depth = values
            points_cam = [unproject_depth(image, camera) for image, camera in zip(depth, intrinsics, strict=True)]
            points = np.stack([to_scene(*of_frame) for of_frame in zip(points_cam, window_from_cam, strict=True)])
        else:
            points = values
            z_axis = cameras.cam_from_world[:, None, None, 2]
            depth = (points * z_axis[..., :3]).sum(axis=-1) + z_axis[..., 3]
        if self._unit_m is None:
            return WindowGeometry(depth, confidence, points, window_from_cam), intrinsics
        window_from_cam[:, :3, 3] *= self._unit_m
        unit_m = np.float32(self._unit_m)
        return WindowGeometry(depth * unit_m, confidence, points * unit_m, window_from_cam, metric=True), intrinsics

    def _image(self, frame: Frame, width_px: int, height_px: int) -> Tensor:
        """float32 [3, height, width] in [0, 1]; rounded to 8 bits in between, as the images of the training were."""
        image = torch.tensor(frame.rgb, device=self._device).permute(2, 0, 1)[None].float()
        if image.shape[2:] != (height_px, width_px):
            image = F.interpolate(image, size=(height_px, width_px), mode="bicubic", antialias=True)
        return image[0].clamp(0, 255).round() / 255


def _array(output: Tensor | None) -> np.ndarray:
    if output is None:
        raise EncoderError("The VGGT model did not give an output it was asked for.")
    return output[0].float().cpu().numpy()


def _intrinsics(matrix: np.ndarray, frame: Frame, width_px: int, height_px: int) -> Intrinsics:
    try:
        return Intrinsics(
            float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]), width_px, height_px
        )
    except ConfigurationError as error:
        raise EncoderError(
            f"VGGT gave the frame at {frame.stamp_ns} ns a field of view that no camera has: {error}"
        ) from error


def _in_scene(window: WindowGeometry, index: int, intrinsics: Intrinsics, alignment: WindowAlignment) -> FrameGeometry:
    scene_from_window = alignment.scene_from_window
    return FrameGeometry(
        points_scene=scene_from_window.apply(window.points_window[index]).astype(np.float32),
        confidence=window.confidence[index],
        scene_from_cam=scene_from_window.apply_to_pose(window.window_from_cam[index]),
        intrinsics=intrinsics,
        scale_source=ScaleSource(alignment.scale_source),
    )
