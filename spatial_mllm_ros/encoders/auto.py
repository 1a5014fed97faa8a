"""Sensor geometry where the robot has depth and poses, VGGT where it has not, chosen once per epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, GeometryEncoder
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame

_log = logging.getLogger(__name__)


class AutoGeometryEncoder:
    """Uses the sensor for an epoch whose first frame has depth, pose and intrinsics, and VGGT otherwise.

    A window without anchors starts an epoch. Therefore ``anchor_count`` is at least 1 here, also while the sensor is
    active, which uses no anchors. The choice holds for the whole epoch, so lengths of two kinds never mix. An epoch
    that starts with a restored scene is announced by ``forget_choice``; it uses VGGT if no sensor measured that scene.

    Args:
        sensor: the encoder for frames with depth, pose and intrinsics.
        make_vggt: creates the VGGT encoder; called at most once, when an epoch first needs it; its weights are large.
        window_size: most frames per window; smaller where VGGT takes fewer.
        anchor_count: anchors asked for; smaller where VGGT takes fewer.
        fault: what has failed behind the encoders while they go on working; "" for nothing.
    """

    def __init__(
        self,
        sensor: SensorDepthEncoder,
        make_vggt: Callable[[], GeometryEncoder],
        *,
        window_size: int = 8,
        anchor_count: int = 4,
        fault: Callable[[], str] = lambda: "",
    ) -> None:
        if window_size < 1 or anchor_count < 1:
            raise ConfigurationError(
                f"AutoGeometryEncoder takes window_size and anchor_count from 1 up; got {window_size}, {anchor_count}."
            )
        self._sensor = sensor
        self._make_vggt = make_vggt
        self._fault = fault
        self._vggt: GeometryEncoder | None = None
        self._active: GeometryEncoder | None = None
        self.window_size = window_size
        self.anchor_count = anchor_count

    @property
    def name(self) -> str:
        """Backend of the present epoch; "auto" before the first window."""
        return "auto" if self._active is None else f"auto({self._active.name})"

    @property
    def fault(self) -> str:
        """See ``ReportsFault``."""
        return self._fault()

    def encode(self, frames: Sequence[Frame], anchors: Sequence[Anchor]) -> list[FrameGeometry]:
        """See ``GeometryEncoder``.

        Raises:
            EncoderError: the encoder of this epoch cannot use the frames, or VGGT cannot be made.
        """
        if self._active is None or not anchors:
            self._active = self._choose(frames[0], anchors)
        if self._active is self._sensor:
            return self._sensor.encode(frames)
        size = self._active.window_size
        geometries: list[FrameGeometry] = []
        for start in range(0, len(frames), size):
            part = frames[start : start + size]
            # only a first window larger than VGGT takes comes in parts; its first part anchors the later ones
            fixed = anchors or [Anchor(f, g) for f, g in zip(frames[:start], geometries, strict=True)]
            geometries += self._active.encode(part, fixed[-self._active.anchor_count :] if fixed else ())
        return geometries

    def forget_choice(self) -> None:
        """See ``ChoosesPerEpoch``."""
        self._active = None

    def _choose(self, first: Frame, anchors: Sequence[Anchor]) -> GeometryEncoder:
        missing = self._sensor.missing(first)
        if any(not anchor.geometry.scale_source.is_measured for anchor in anchors):
            missing.append("place by its pose in a scene that poses did not make")
        if not missing:
            _log.info("Geometry of this epoch comes from the depth sensor: frame %d has all it needs.", first.stamp_ns)
            return self._sensor
        _log.info(
            "Geometry of this epoch comes from VGGT: frame %d has no %s.", first.stamp_ns, " and no ".join(missing)
        )
        if self._vggt is None:
            self._vggt = self._make_vggt()
            self.window_size = min(self.window_size, self._vggt.window_size)
            self.anchor_count = max(1, min(self.anchor_count, self._vggt.anchor_count))
        return self._vggt
