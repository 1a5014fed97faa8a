"""Camera messages to frames: a colour image, its depth, its calibration and its pose are matched by their stamps."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.stamp_index import StampIndex
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.ros.conversions import color_of, depth_of, intrinsics_of, stamp_ns
from spatial_mllm_ros.ros.poses import PoseSource, PoseUnavailableError, TopicPoses
from spatial_mllm_ros.scene.scene import Scene

_HELD_DEPTHS = 64  # for colour images still to come
_HELD_COLORS = 16  # colour images that may wait for their depth and pose


class _CountedBySceneError(FrameRejectedError):
    """A frame that the scene itself refused; the scene has counted it."""


class FrameAssembler:
    """Makes frames of messages and adds them to a scene. All methods are called from the executor's thread.

    Args:
        scene: gets the frames; counts by cause what cannot become one.
        needs_depth: a colour image without depth is rejected.
        poses: None where frames have no pose; otherwise a colour image without a pose is rejected.
        slop_ns: the largest difference between the stamps of one frame's messages.
        wait_ns: how long, by stamps of newer colour images, a colour image waits for its depth and pose.
        on_frame: called after a frame was added.

    Attributes:
        received: colour images that have arrived.
        last_reason: the sentence that says why the latest rejected image was rejected; "" before the first.
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
        self._depths: StampIndex[Image] = StampIndex(_HELD_DEPTHS)
        self._camera_info: CameraInfo | None = None
        self._newest_ns = 0
        self.received = 0
        self.last_reason = ""

    @property
    def waiting(self) -> int:
        """How many colour images wait for their depth or pose."""
        return len(self._waiting)

    def on_color(self, message: Image | CompressedImage) -> None:
        """A colour image has arrived."""
        self.received += 1
        stamp = stamp_ns(message.header.stamp)
        if stamp < self._newest_ns:
            self._waiting.clear()  # the clock jumped back: the waiting images belong to the past
        self._newest_ns = stamp
        if not self._scene.queue.admits(stamp):
            return  # too early, or out of order: the scene has counted it, and it need not be decoded
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
        if not isinstance(self._poses, TopicPoses):
            return
        try:
            self._poses.add(message)
        except FrameRejectedError as error:
            self._reject(error)
        self.assemble()

    def assemble(self) -> None:
        """Makes frames of the waiting colour images, in order, as far as their depth and pose have arrived."""
        while self._waiting:
            message = self._waiting[0]
            try:
                frame = self._frame(message)
                if frame is None:
                    return
                self._waiting.popleft()
                with _counted_by_scene():
                    added = self._scene.add(frame)
                if added:
                    self._on_frame()
            except FrameRejectedError as error:
                if self._waiting and self._waiting[0] is message:
                    self._waiting.popleft()
                self._reject(error)

    def _frame(self, message: Image | CompressedImage) -> Frame | None:
        """The frame of a colour image; None while the image may still wait for its depth and pose."""
        stamp = stamp_ns(message.header.stamp)
        may_wait = self._newest_ns - stamp < self._wait_ns
        depth_message = self._depths.nearest(stamp, self._slop_ns) if self._needs_depth else None
        if self._needs_depth and depth_message is None:
            if may_wait and self._depths.newest_ns <= stamp + self._slop_ns:
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
                if may_wait and not error.final:
                    return None
                raise FrameRejectedError("no_pose", str(error)) from error
        return self._decoded(message, stamp, depth_message, pose)

    def _decoded(
        self, message: Image | CompressedImage, stamp: int, depth: Image | None, pose: NDArray[np.float64] | None
    ) -> Frame:
        # A raw image is decoded straight into the ring's memory; the size of a compressed one is not known before.
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

    def _leased(self, message: Image) -> NDArray[np.uint8] | None:
        if not (message.height > 0 and message.width > 0 and len(message.data) >= message.height * message.width):
            return None  # malformed: the decoder says how, and no memory is spent on it
        with _counted_by_scene():
            return self._scene.queue.lease(message.height, message.width)

    def _reject(self, error: FrameRejectedError) -> None:
        if not isinstance(error, _CountedBySceneError):
            self._scene.queue.count_rejected(error.cause)
        self.last_reason = str(error)


@contextlib.contextmanager
def _counted_by_scene() -> Iterator[None]:
    try:
        yield
    except FrameRejectedError as error:
        raise _CountedBySceneError(error.cause, str(error)) from error
