"""ROS 2 bags (sqlite3 and MCAP) as recordings, read with rosbags and without a ROS installation."""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_mllm_ros.errors import FrameRejectedError, SourceError, without_tools
from spatial_mllm_ros.frames.codec import decode_color, decode_compressed_color, decode_depth
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.stamp_index import StampIndex
from spatial_mllm_ros.geometry.cameras import Intrinsics, calibrated_camera
from spatial_mllm_ros.recordings.bag_topics import (
    CAMERA_INFO,
    COMPRESSED,
    IMAGE,
    POSE,
    TF,
    BagTopics,
    TopicSample,
    choose_topics,
)
from spatial_mllm_ros.recordings.recording import Recording, check_depth_shape, check_pose, intrinsics_for
from spatial_mllm_ros.recordings.transforms import PoseTrack, TransformTree

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

logger = logging.getLogger(__name__)

BAG_SUFFIXES = (".mcap", ".db3")
#: How far the stamps of a colour image and of its depth or pose may differ: more than half a period at 30 Hz.
PAIR_TOLERANCE_NS = 20_000_000
FIXED_FRAMES = ("map", "odom", "world")  # in this order (REP-105); the first one that tf leads to

_HELD = 30  # colour images that wait for their depth, and depth images that are kept for them


def bag_path(path: Path) -> Path | None:
    """The path that rosbags opens: a bag's folder or its only storage file; None where ``path`` is no ROS 2 bag.

    Raises:
        SourceError: ``path`` holds several storage files without metadata.yaml, or is a ROS 1 bag.
    """
    if path.is_file():
        if path.suffix.lower() == ".bag":
            raise SourceError(f"{path} is a ROS 1 bag; convert it with: rosbags-convert --src {path.name} --dst FOLDER")
        return path if path.suffix.lower() in BAG_SUFFIXES else None
    if (path / "metadata.yaml").is_file():
        return path
    storage = sorted(file for file in path.iterdir() if file.suffix.lower() in BAG_SUFFIXES)
    if len(storage) > 1:
        raise SourceError(
            f"{path} holds {len(storage)} bag files but no metadata.yaml; run: ros2 bag reindex {path.name}"
        )
    return storage[0] if storage else None


@dataclass(frozen=True)
class _Entry:
    """One colour message with the depth message nearest in time."""

    color: Any
    depth: Any | None


class Bag(Recording[_Entry]):
    """A ROS 2 bag: colour images with the depth, camera and pose that go with them.

    Stamps are those of the message headers. Depth is paired by stamp within 20 ms. Poses are interpolated (see
    PoseTrack) from tf where tf leads from the camera to ``map``, ``odom`` or ``world``, otherwise from the PoseStamped
    topic. Where the bag has depth or poses, a colour image without them is left out. A camera that is not calibrated
    (K of zeros), or is calibrated for another field of view, gives frames without intrinsics.

    Raises:
        SourceError: the bag cannot be read, lacks colour images, or has several topics that could be meant.
    """

    kind = "bag"

    def __init__(self, path: Path, *, topics: BagTopics | None = None, intrinsics: Intrinsics | None = None) -> None:
        super().__init__(path.resolve().stem if path.is_file() else path.resolve().name, None)
        self._path = path
        self._wanted = topics or BagTopics()
        self._intrinsics = intrinsics
        self._warned_of_other_view = False
        self._reader = _opened(path)
        try:
            self._prepare()
        except BaseException:
            self._reader.close()
            raise

    def _prepare(self) -> None:
        name = self.name
        tree = self._read_tf() if self._wanted.pose is None else TransformTree()
        samples = self._samples()
        fixed = {s.frame_id.lstrip("/"): self._fixed_frame(tree, s.frame_id) for s in samples}
        chosen = choose_topics(samples, self._wanted, name, frames_in_tf={f for f, frame in fixed.items() if frame})
        self._topics = chosen
        self._tree = tree
        self._fixed = fixed[chosen.color.frame_id.lstrip("/")] if chosen.pose is None else None
        if self._wanted.fixed_frame and self._fixed is None and chosen.pose is None:
            raise SourceError(
                f"tf in the bag {name!r} does not lead from {chosen.color.frame_id!r} to {self._wanted.fixed_frame!r}; "
                f"it leads to: {', '.join(tree.ancestors(chosen.color.frame_id)) or 'nowhere'}."
            )
        self._poses = self._read_poses(chosen.pose) if chosen.pose else None
        self._cameras = self._read_cameras(chosen.camera_info) if chosen.camera_info else []
        self.frame_count = self._reader.topics[chosen.color.name].msgcount
        poses = chosen.pose or (f"tf to {self._fixed}" if self._fixed else None)
        depth = chosen.depth.name if chosen.depth else None
        logger.info("Bag %r: %s, depth %s, %s, poses %s.", name, chosen.color.name, depth, chosen.camera_info, poses)

    def close(self) -> None:
        """Closes the bag's files."""
        if self._reader.stack is not None:
            self._reader.close()

    # -- topics, poses and calibrations ----------------------------------------------------------------------------

    def _samples(self) -> list[TopicSample]:
        samples = []
        for name, topic in sorted(self._reader.topics.items()):
            if topic.msgtype not in (IMAGE, COMPRESSED, CAMERA_INFO, POSE) or topic.msgcount == 0:
                continue
            message = next((m for _, m in self._messages([name])), None)
            if message is not None:
                encoding = getattr(message, "encoding", getattr(message, "format", ""))
                samples.append(TopicSample(name, topic.msgtype, encoding, message.header.frame_id))
        return samples

    def _fixed_frame(self, tree: TransformTree, frame: str) -> str | None:
        ancestors = tree.ancestors(frame)
        wanted = (self._wanted.fixed_frame,) if self._wanted.fixed_frame else FIXED_FRAMES
        return next((fixed for fixed in wanted if fixed in ancestors), None)

    def _read_tf(self) -> TransformTree:
        tree = TransformTree()
        names = [name for name, topic in self._reader.topics.items() if topic.msgtype == TF and topic.msgcount]
        for name, message in self._messages(names):
            for stamped in message.transforms:
                move = stamped.transform
                tree.add(
                    stamped.header.frame_id,
                    stamped.child_frame_id,
                    _stamp_ns(stamped),
                    _vector(move.translation),
                    _quaternion(move.rotation),
                    fixed=name.endswith("tf_static"),
                )
        return tree

    def _read_poses(self, topic: str) -> PoseTrack:
        track = PoseTrack()
        for _, message in self._messages([topic]):
            track.add(_stamp_ns(message), _vector(message.pose.position), _quaternion(message.pose.orientation))
        return track

    def _read_cameras(self, topic: str) -> list[tuple[int, Intrinsics]]:
        """The calibrations, each with the stamp from which it is valid; equal ones in a row are one."""
        cameras: list[tuple[int, Intrinsics]] = []
        for _, message in self._messages([topic]):
            try:
                camera = calibrated_camera(message.k, width_px=int(message.width), height_px=int(message.height))
            except FrameRejectedError as error:
                logger.warning("%s: %s The frames of this bag have no intrinsics.", topic, error)
                return []
            if not cameras or cameras[-1][1] != camera:
                cameras.append((_stamp_ns(message), camera))
        return cameras

    def _messages(self, names: list[str]) -> Iterator[tuple[str, Any]]:
        """Topics and messages in the order of recording; a message that cannot be decoded is counted and left out."""
        connections = [c for c in self._reader.connections if c.topic in names]
        if not connections:
            return
        errors = _storage_errors()
        messages = self._reader.messages(connections)
        while True:
            try:
                connection, _, raw = next(messages)
            except StopIteration:
                return
            except errors as error:
                raise SourceError(
                    f"The bag {self._path} is damaged and cannot be read any further ({error}). Repair it with "
                    "'ros2 bag reindex' or 'mcap recover'."
                ) from error
            try:
                yield connection.topic, self._reader.deserialize(raw, connection.msgtype)
            except errors as error:
                self._reject("message", f"a message on {connection.topic} is malformed: {error}")

    # -- the pass --------------------------------------------------------------------------------------------------

    def _entries(self) -> Iterator[_Entry]:
        color, depth = self._topics.color.name, self._topics.depth
        if depth is None:
            for _, message in self._messages([color]):
                yield _Entry(message, None)
            return
        waiting: deque[Any] = deque()
        depths: StampIndex[Any] = StampIndex(_HELD)
        for topic, message in self._messages([color, depth.name]):
            if topic == color:
                waiting.append(message)
            else:
                depths.add(_stamp_ns(message), message)
            while waiting and (len(waiting) > _HELD or depths.newest_ns >= _stamp_ns(waiting[0]) + PAIR_TOLERANCE_NS):
                yield _paired(waiting.popleft(), depths)
        while waiting:
            yield _paired(waiting.popleft(), depths)

    def _frame(self, entry: _Entry) -> Frame:
        message = entry.color
        stamp_ns = _stamp_ns(message)
        if self._topics.color.message_type == COMPRESSED:
            rgb = decode_compressed_color(message.format, message.data)
        else:
            rgb = decode_color(*_image_fields(message))
        return Frame(
            stamp_ns=stamp_ns,
            rgb=rgb,
            camera_frame_id=message.header.frame_id,
            intrinsics=self._camera_at(stamp_ns, rgb),
            depth_m=self._depth_of(entry, rgb),
            scene_from_cam=self._pose_at(stamp_ns),
        )

    def _depth_of(self, entry: _Entry, rgb: np.ndarray) -> np.ndarray | None:
        if self._topics.depth is None:
            return None
        if entry.depth is None:
            raise FrameRejectedError(
                "no_depth",
                f"no depth image within {PAIR_TOLERANCE_NS // 1_000_000} ms of the colour image stamped "
                f"{_stamp_ns(entry.color)} ns.",
            )
        depth_m = decode_depth(*_image_fields(entry.depth))
        check_depth_shape(depth_m, rgb, f"the depth image stamped {_stamp_ns(entry.depth)} ns")
        return depth_m

    def _pose_at(self, stamp_ns: int) -> np.ndarray | None:
        if self._fixed is not None:
            pose = self._tree.pose(self._fixed, self._topics.color.frame_id, stamp_ns, PAIR_TOLERANCE_NS)
        elif self._poses is not None:
            found = self._poses.at(stamp_ns, PAIR_TOLERANCE_NS)
            if found is None:
                raise FrameRejectedError("no_pose", f"no camera pose around {stamp_ns} ns on {self._topics.pose}.")
            pose = found
        else:
            return None
        return check_pose(pose, f"the camera pose at {stamp_ns} ns")

    def _camera_at(self, stamp_ns: int, rgb: np.ndarray) -> Intrinsics | None:
        if self._intrinsics is not None:
            return intrinsics_for(self._intrinsics, rgb)
        if not self._cameras:
            return None
        earlier = [camera for since_ns, camera in self._cameras if since_ns <= stamp_ns + PAIR_TOLERANCE_NS]
        camera = earlier[-1] if earlier else self._cameras[0][1]
        try:
            return intrinsics_for(camera, rgb)
        except FrameRejectedError as error:
            if not self._warned_of_other_view:
                logger.warning("%s: the camera_info is not used: %s", self.name, error)
                self._warned_of_other_view = True
            return None


def _paired(color: Any, depths: StampIndex[Any]) -> _Entry:
    return _Entry(color, depths.nearest(_stamp_ns(color), PAIR_TOLERANCE_NS))


def _opened(path: Path) -> AnyReader:
    # A machine without rosbags can still read folders and videos.
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise without_tools(error) from error
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except _storage_errors() as error:
        raise SourceError(
            f"The bag {path} cannot be opened: {error} If its recording was cut short, repair it with "
            "'ros2 bag reindex' or 'mcap recover'."
        ) from error
    return reader


def _storage_errors() -> tuple[type[Exception], ...]:
    """The exceptions that rosbags and its storage libraries raise on damaged files."""
    import sqlite3

    from rosbags.highlevel import AnyReaderError
    from rosbags.rosbag2 import ReaderError

    return (
        AnyReaderError,
        ReaderError,
        sqlite3.Error,
        struct.error,
        OSError,
        ValueError,
        IndexError,
        KeyError,
        EOFError,
    )


def _stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def _image_fields(message: Any) -> tuple[str, int, int, int, int, np.ndarray]:
    return message.encoding, message.height, message.width, message.step, message.is_bigendian, message.data


def _vector(xyz: Any) -> np.ndarray:
    return np.array([xyz.x, xyz.y, xyz.z])


def _quaternion(xyzw: Any) -> np.ndarray:
    return np.array([xyzw.x, xyzw.y, xyzw.z, xyzw.w])
