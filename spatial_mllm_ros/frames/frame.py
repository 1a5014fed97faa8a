"""One camera frame, decoded and checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.geometry.cameras import Intrinsics


@dataclass(frozen=True, eq=False)
class Frame:
    """A colour image with what the robot knew about it when it was taken.

    Arrays are read-only by agreement: several holders share them, and none copies them.

    Attributes:
        stamp_ns: time of the exposure, integer nanoseconds of the message stamp, > 0. Within an epoch stamps grow
            strictly, so (epoch, stamp_ns) names a frame.
        rgb: uint8 [H, W, 3], R G B.
        camera_frame_id: tf name of the camera's optical frame ("" where there is none, e.g. a video file).
        intrinsics: the camera for an image of rgb's size, or None when unknown.
        depth_m: float32 [h, w], metres along z, NaN where there is no reading; registered to the colour camera,
            possibly at another resolution of the same field of view. None when there is no depth sensor.
        scene_from_cam: float64 [4, 4], camera-to-scene pose from tf or a pose topic, metres. None when unknown.
    """

    stamp_ns: int
    rgb: np.ndarray
    camera_frame_id: str = ""
    intrinsics: Intrinsics | None = None
    depth_m: np.ndarray | None = None
    scene_from_cam: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.stamp_ns <= 0:
            raise FrameRejectedError(
                "stamp",
                f"The frame's stamp is {self.stamp_ns} ns; it must be above 0. Set header.stamp when publishing.",
            )
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.size == 0:
            raise FrameRejectedError(
                "size",
                f"The colour image is {self.rgb.dtype} {self.rgb.shape}; expected uint8 [H, W, 3] with H, W > 0.",
            )
        h, w = self.rgb.shape[:2]
        if self.intrinsics is not None and (self.intrinsics.width_px, self.intrinsics.height_px) != (w, h):
            raise FrameRejectedError(
                "intrinsics",
                f"The intrinsics are for {self.intrinsics.width_px}x{self.intrinsics.height_px} but the image is "
                f"{w}x{h}; scale them with Intrinsics.resized first.",
            )
        if self.depth_m is not None and (self.depth_m.dtype != np.float32 or self.depth_m.ndim != 2):
            raise FrameRejectedError(
                "depth",
                f"The depth image is {self.depth_m.dtype} {self.depth_m.shape}; expected float32 [h, w] in metres.",
            )
        pose = self.scene_from_cam
        if pose is not None and (pose.shape != (4, 4) or not np.isfinite(pose).all()):
            raise FrameRejectedError("pose", f"The camera pose must be a finite [4, 4] matrix; got shape {pose.shape}.")

    def is_like(self, other: Frame) -> bool:
        """Whether both come from one camera in one mode: the same tf name and image size."""
        return self.rgb.shape == other.rgb.shape and self.camera_frame_id == other.camera_frame_id

    @property
    def nbytes(self) -> int:
        """Bytes of the pixel data held by this frame."""
        return self.rgb.nbytes + (0 if self.depth_m is None else self.depth_m.nbytes)
