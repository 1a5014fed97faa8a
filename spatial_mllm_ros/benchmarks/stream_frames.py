"""Long streams of frames as a robot's camera sends them, made out of short ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.frames.codec import decode_compressed_color, decode_depth
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.recording import FIRST_STAMP_NS
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.world.world import split_seed
from spatial_mllm_ros.scene.scene import Scene

PERIOD_NS = 200_000_000  #: between frames of a stream: 5 Hz, the rate at which the node buffers frames
_JPEG_QUALITY = 90
_ROOM_DISTANCE_M = 40.0  # farther apart than any generated world is wide


@dataclass(frozen=True, eq=False)
class SentFrame:
    """What camera and localisation send: a JPEG image, a 16UC1 depth image in millimetres, a pose.

    Attributes:
        depth_mm: uint16 [h, w], 0 where there is no reading.
        scene_from_cam: float64 [4, 4], metres.
    """

    jpeg: bytes
    depth_mm: np.ndarray
    height_px: int
    width_px: int
    intrinsics: Intrinsics
    scene_from_cam: np.ndarray

    def take_into(self, scene: Scene, stamp_ns: int) -> bool:
        """What a node does with it: asks the scene, decodes into the ring's memory, hands the frame over."""
        if not scene.queue.admits(stamp_ns):
            return False
        rgb = scene.queue.lease(self.height_px, self.width_px)
        decode_compressed_color("jpeg", self.jpeg, out=rgb)
        height, width = self.depth_mm.shape
        depth_m = decode_depth("16UC1", height, width, 2 * width, False, self.depth_mm.data.cast("B"))
        return scene.add(
            Frame(stamp_ns, rgb, intrinsics=self.intrinsics, depth_m=depth_m, scene_from_cam=self.scene_from_cam)
        )


def sent_frames(frames: Iterable[Frame]) -> list[SentFrame]:
    """Frames as they would have been sent.

    Raises:
        SourceError: a frame without depth, intrinsics or pose.
    """
    return [_sent(frame) for frame in frames]


def rooms_walk(
    rooms: int, frames_per_room: int, *, width_px: int = 224, height_px: int = 168, first_room: int = 0
) -> Iterator[Frame]:
    """A walk through generated test rooms, one after the other and far apart, with exact depth and poses."""
    config = ClipConfig(frames_per_room, width_px, height_px)
    for room in range(first_room, first_room + rooms):
        (clip,) = make_clips([split_seed("test", room)], config)
        for index, frame in enumerate(clip.frames()):
            pose = np.array(frame.scene_from_cam)
            pose[0, 3] += room * _ROOM_DISTANCE_M
            stamp_ns = FIRST_STAMP_NS + (room * frames_per_room + index) * PERIOD_NS
            yield Frame(stamp_ns, frame.rgb, frame.camera_frame_id, frame.intrinsics, frame.depth_m, pose)


def stamps(count: int) -> Iterator[int]:
    """Stamps of a stream of ``count`` frames."""
    return (FIRST_STAMP_NS + index * PERIOD_NS for index in range(count))


def looped(sent: Sequence[SentFrame], count: int) -> Iterator[tuple[int, SentFrame]]:
    """``count`` frames with growing stamps: ``sent`` over and over, as a robot that goes its round again and again."""
    return ((stamp_ns, sent[index % len(sent)]) for index, stamp_ns in enumerate(stamps(count)))


def _sent(frame: Frame) -> SentFrame:
    if frame.depth_m is None or frame.intrinsics is None or frame.scene_from_cam is None:
        raise SourceError(
            f"Frame {frame.stamp_ns} ns has no depth, intrinsics or pose; this benchmark needs an RGB-D recording with "
            "poses."
        )
    _, jpeg = cv2.imencode(".jpg", frame.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    depth_mm = np.nan_to_num(1000.0 * frame.depth_m, nan=0.0, posinf=0.0).clip(0, 65_534).round().astype(np.uint16)
    height_px, width_px = frame.rgb.shape[:2]
    return SentFrame(jpeg.tobytes(), depth_mm, height_px, width_px, frame.intrinsics, frame.scene_from_cam)
