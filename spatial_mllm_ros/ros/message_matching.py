"""Camera messages to frames: a colour image, its depth, its camera and its pose come together by their stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.stamp_index import StampIndex
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.ros.conversions import color_of, depth_of, intrinsics_of, matrix_of, stamp_ns
from spatial_mllm_ros.scene.scene import Scene

_T = TypeVar("_T")
_HELD_MATES = 64  # depth images and poses kept for colour images still to come
_HELD_COLORS = 16  # colour images that may wait for their mates


class _CountedBySceneError(FrameRejectedError):
    """A frame that the scene itself refused; the scene has counted it."""


class PoseUnavailableError(Exception):
    """The camera's pose at a stamp is not known; ``final`` when waiting longer will not help."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


class PoseSource(Protocol):
    """Where the pose of the camera at a stamp comes from."""

    def scene_from_cam(self, stamp_ns: int, camera_frame_id: str) -> np.ndarray:
        """float64 [4, 4]; raises PoseUnavailableError."""
        ...


class TopicPoses:
    """Poses of the camera's optical frame in the scene frame, from a PoseStamped topic."""

    def __init__(self, scene_frame: str, slop_ns: int) -> None:
        self._scene_frame = scene_frame
        self._slop_ns = slop_ns
        self._poses: StampIndex[np.ndarray] = StampIndex(_HELD_MATES)

    def add(self, message: PoseStamped) -> None:
        """Keeps one pose; FrameRejectedError where it is malformed or in another frame."""
        if message.header.frame_id not in ("", self._scene_frame):
            raise FrameRejectedError(
                "pose_frame",
                f"The camera pose is in frame {message.header.frame_id!r} but the scene frame is "
                f"{self._scene_frame!r}; set the parameter scene_frame to the frame of the poses.",
            )
        self._poses.add(stamp_ns(message.header.stamp), matrix_of(message.pose))

    def scene_from_cam(self, stamp_ns: int, camera_frame_id: str) -> np.ndarray:
        """See PoseSource; ``camera_frame_id`` is not needed, since the topic names one camera."""
        pose = self._poses.nearest(stamp_ns, self._slop_ns)
        if pose is None:
            raise PoseUnavailableError(
                f"no camera pose within {self._slop_ns / 1e6:.0f} ms of the image of {camera_frame_id!r}",
                final=self._poses.newest_ns > stamp_ns + self._slop_ns,
            )
        return pose


class FrameAssembler:
    """Feeds a scene with frames made of messages; all its methods are called from the executor's thread.

    What cannot become a frame is counted by the scene, by cause; ``last_reason`` is the last sentence why.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        needs_depth: bool,
        poses: PoseSource | None,
        slop_ns: int,
        wait_ns: int,
        on_frame: Callable[[], None],
    ) -> None:
        self._scene = scene
        self._needs_depth = needs_depth
        self._poses = poses
        self._slop_ns = slop_ns
        self._wait_ns = wait_ns
        self._on_frame = on_frame
        self._waiting: deque[Image | CompressedImage] = deque()
        self._depths: StampIndex[Image] = StampIndex(_HELD_MATES)
        self._camera_info: CameraInfo | None = None
        self._newest_ns = 0
        self.received = 0
        self.last_reason = ""

    def on_color(self, message: Image | CompressedImage) -> None:
        """A colour image has arrived."""
        self.received += 1
        stamp = stamp_ns(message.header.stamp)
        if stamp < self._newest_ns:
            self._waiting.clear()  # the clock jumped back: what waited belongs to the past
        self._newest_ns = stamp
        if not self._scene.admits(stamp):
            return  # too early, or out of order: counted by the scene, and not worth decoding
        self._waiting.append(message)
        if len(self._waiting) > _HELD_COLORS:
            self._reject(FrameRejectedError("overrun", "Too many colour images wait for their depth and pose."))
            self._waiting.popleft()
        self.assemble()

    def on_depth(self, message: Image) -> None:
        """A depth image has arrived."""
        self._depths.add(stamp_ns(message.header.stamp), message)
        self.assemble()

    def on_camera_info(self, message: CameraInfo) -> None:
        """A calibration has arrived; the last one holds."""
        self._camera_info = message

    def on_pose(self, message: PoseStamped) -> None:
        """A camera pose has arrived on the topic."""
        try:
            self._poses.add(message)  # type: ignore[union-attr]
        except FrameRejectedError as error:
            self._reject(error)
        self.assemble()

    def assemble(self) -> None:
        """Makes frames of the waiting colour images, in order, as far as their mates are there."""
        while self._waiting:
            message = self._waiting[0]
            try:
                frame = self._frame(message)
                if frame is None:
                    return
                self._waiting.popleft()
                if _by_scene(self._scene.add, frame):
                    self._on_frame()
            except FrameRejectedError as error:
                if self._waiting and self._waiting[0] is message:
                    self._waiting.popleft()
                self._reject(error)

    def _frame(self, message: Image | CompressedImage) -> Frame | None:
        """The frame of a colour image; None while it may still wait for its mates."""
        stamp = stamp_ns(message.header.stamp)
        patient = self._newest_ns - stamp < self._wait_ns
        depth_message = self._depths.nearest(stamp, self._slop_ns) if self._needs_depth else None
        if self._needs_depth and depth_message is None:
            if patient and self._depths.newest_ns <= stamp + self._slop_ns:
                return None
            raise FrameRejectedError(
                "no_depth",
                f"No depth image within {self._slop_ns / 1e6:.0f} ms of the colour image; check the topic 'depth', "
                "raise input.match_slop_s, or set input.depth to false.",
            )
        pose = None
        if self._poses is not None:
            try:
                pose = self._poses.scene_from_cam(stamp, message.header.frame_id)
            except PoseUnavailableError as error:
                if patient and not error.final:
                    return None
                raise FrameRejectedError("no_pose", f"The camera's pose is not known: {error}.") from error
        return self._decoded(message, stamp, depth_message, pose)

    def _decoded(
        self, message: Image | CompressedImage, stamp: int, depth: Image | None, pose: np.ndarray | None
    ) -> Frame:
        # Raw images are decoded straight into the ring's memory; the size of a compressed one is not known before.
        out = None if isinstance(message, CompressedImage) else self._leased(message)
        rgb = color_of(message, out)
        height, width = rgb.shape[:2]
        intrinsics: Intrinsics | None = None
        if self._camera_info is not None:
            intrinsics = intrinsics_of(self._camera_info, width_px=width, height_px=height)
        elif self._needs_depth:
            raise FrameRejectedError(
                "no_camera_info", "Depth needs a calibrated camera and no camera_info has arrived; check its topic."
            )
        return Frame(
            stamp_ns=stamp,
            rgb=rgb,
            camera_frame_id=message.header.frame_id,
            intrinsics=intrinsics,
            depth_m=None if depth is None else depth_of(depth),
            scene_from_cam=pose,
        )

    def _leased(self, message: Image) -> Any:
        if not (message.height > 0 and message.width > 0 and len(message.data) >= message.height * message.width):
            return None  # malformed: the decoder says how, and no memory is spent on it
        return _by_scene(self._scene.lease, message.height, message.width)

    def _reject(self, error: FrameRejectedError) -> None:
        if not isinstance(error, _CountedBySceneError):
            self._scene.count_rejected(error.cause)
        self.last_reason = str(error)


def _by_scene(call: Callable[..., _T], *arguments: Any) -> _T:
    try:
        return call(*arguments)
    except FrameRejectedError as error:
        raise _CountedBySceneError(error.cause, str(error)) from error
