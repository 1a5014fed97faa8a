"""The interface of all spatial encoders, and the records that they give and take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np

from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics


class ScaleSource(str, Enum):
    """Where the unit of length of the scene comes from."""

    DEPTH = "depth"  #: a depth sensor: metres
    TF = "tf"  #: camera poses of the robot: metres
    MODEL_METRIC = "model_metric"  #: the spatial encoder alone, whose checkpoint states its unit: metres as it guesses
    MODEL = "model"  #: the spatial encoder alone: lengths are relative, not metres

    @property
    def is_metric(self) -> bool:
        """Whether lengths are metres."""
        return self is not ScaleSource.MODEL

    @property
    def is_measured(self) -> bool:
        """Whether a sensor or the robot tied the unit down, rather than the spatial encoder."""
        return self in (ScaleSource.DEPTH, ScaleSource.TF)


@dataclass(frozen=True, eq=False)
class FrameGeometry:
    """The points that one frame shows, in the scene frame.

    Attributes:
        points_scene: float32 [h, w, 3], one point per (sub-sampled) pixel; NaN where there is none.
        confidence: float32 [h, w], larger is surer, comparable within one encoder only; 0 where there is no point.
        scene_from_cam: float64 [4, 4], camera-to-scene pose.
        intrinsics: the camera for an image of w x h, i.e. of the point map.
        scale_source: where the unit of length comes from; metres where it ``is_metric``.
    """

    points_scene: np.ndarray
    confidence: np.ndarray
    scene_from_cam: np.ndarray
    intrinsics: Intrinsics
    scale_source: ScaleSource


@dataclass(frozen=True, eq=False)
class Anchor:
    """A frame already placed in the scene, by which an encoder aligns the next window to the scene.

    Attributes:
        fine_keys: the voxels that the frame sees on the scene's finest grid, int64 [n], ascending, by which the scene
            decides which anchors to keep; encoders do not need them.
    """

    frame: Frame
    geometry: FrameGeometry
    fine_keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


class GeometryEncoder(Protocol):
    """Turns frames into points in the scene frame."""

    @property
    def name(self) -> str:
        """Backend for logs and reports, e.g. ``vggt``, ``sensor-depth``, ``fake``."""
        ...

    @property
    def window_size(self) -> int:
        """How many new frames one call takes at best (1 for a sensor)."""
        ...

    @property
    def anchor_count(self) -> int:
        """How many anchors a call can use (0 for a sensor)."""
        ...

    def encode(self, frames: Sequence[Frame], anchors: Sequence[Anchor]) -> list[FrameGeometry]:
        """Geometry of ``frames`` (1 to window_size of them, in stamp order), in the scene frame of ``anchors``.

        Without anchors the encoder is free to choose the scene frame: that of the frames' poses where they have
        them, else the first frame's camera.

        Raises:
            EncoderError: the frames cannot be encoded (missing depth, values that are not finite, out of memory).
        """
        ...


@runtime_checkable
class ChoosesPerEpoch(Protocol):
    """An encoder that decides once per epoch how geometry is made."""

    def forget_choice(self) -> None:
        """An epoch starts that has anchors already, made in whichever way; called by the thread that encodes."""
        ...


@runtime_checkable
class ReportsFault(Protocol):
    """An encoder that can go on working although a part of it has failed, and says so."""

    @property
    def fault(self) -> str:
        """What has failed and what runs in its place, for a person; "" while nothing has."""
        ...
