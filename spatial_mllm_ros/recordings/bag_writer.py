"""Writes frames as a ROS 2 bag, with rosbags and without a ROS installation."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.poses import quaternion_from_matrix
from spatial_mllm_ros.recordings.rgbd_folder import depth_to_millimetres

if TYPE_CHECKING:
    from rosbags.rosbag2 import Writer
    from rosbags.typesys.store import Typestore

_STORAGES = ("mcap", "sqlite3")
_COLORS = ("rgb8", "jpeg")


def write_bag(
    path: Path, frames: Iterable[Frame], *, storage: str = "mcap", color: str = "rgb8", scene_frame: str = "map"
) -> int:
    """Writes ``frames`` to a new bag and returns their number.

    The topics are ``/image`` (rgb8) or ``/image/compressed`` (jpeg, quality 95), and where the frames have them
    ``/depth`` (16UC1, millimetres), ``/camera_info`` and ``/camera_pose`` (PoseStamped in ``scene_frame``).

    Args:
        path: folder of the bag; must not exist yet.
        storage: ``mcap`` or ``sqlite3``.
        color: ``rgb8`` or ``jpeg``.

    Raises:
        SourceError: ``path`` exists or cannot be written. An unfinished bag is removed.
        ConfigurationError: ``storage`` or ``color`` is none of these.
    """
    if storage not in _STORAGES or color not in _COLORS:
        raise ConfigurationError(
            f"write_bag: storage {storage!r} must be one of {_STORAGES}, color {color!r} of {_COLORS}."
        )
    if path.exists():
        raise SourceError(f"{path} exists already; give the bag another name.")
    from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    count = 0
    try:
        with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
            topics = _Topics(writer, store)
            for frame in frames:
                _write_frame(topics, frame, color, scene_frame)
                count += 1
    except (WriterError, OSError) as error:
        shutil.rmtree(path, ignore_errors=True)
        raise SourceError(f"The bag {path} could not be written: {error}") from error
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return count


class _Topics:
    """The topics of the bag; each is made with its first message."""

    def __init__(self, writer: Writer, store: Typestore) -> None:
        self._writer = writer
        self._store = store
        self._connections: dict[str, Any] = {}

    def type(self, name: str) -> Any:
        """The message class of that name."""
        return self._store.types[name]

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """A std_msgs/Header."""
        time = self.type("builtin_interfaces/msg/Time")(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self.type("std_msgs/msg/Header")(stamp=time, frame_id=frame_id)

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Appends one message."""
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=self._store)
        self._writer.write(self._connections[topic], stamp_ns, self._store.serialize_cdr(message, kind))


def _write_frame(topics: _Topics, frame: Frame, color: str, scene_frame: str) -> None:
    stamp_ns = frame.stamp_ns
    header = topics.header(stamp_ns, frame.camera_frame_id)
    if frame.intrinsics is not None:
        whole_image = topics.type("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, do_rectify=False)
        calibration = frame.intrinsics.calibration()
        message = topics.type("sensor_msgs/msg/CameraInfo")(
            header=header, binning_x=0, binning_y=0, roi=whole_image, **calibration
        )
        topics.write("/camera_info", stamp_ns, message)
    if frame.scene_from_cam is not None:
        pose = topics.type("geometry_msgs/msg/Pose")(
            position=topics.type("geometry_msgs/msg/Point")(*map(float, frame.scene_from_cam[:3, 3])),
            orientation=topics.type("geometry_msgs/msg/Quaternion")(
                *map(float, quaternion_from_matrix(frame.scene_from_cam[:3, :3]))
            ),
        )
        stamped = topics.type("geometry_msgs/msg/PoseStamped")(header=topics.header(stamp_ns, scene_frame), pose=pose)
        topics.write("/camera_pose", stamp_ns, stamped)
    if color == "jpeg":
        bgr = np.ascontiguousarray(frame.rgb[:, :, ::-1])
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        message = topics.type("sensor_msgs/msg/CompressedImage")(header=header, format="jpeg", data=data.reshape(-1))
        topics.write("/image/compressed", stamp_ns, message)
    else:
        topics.write("/image", stamp_ns, _image(topics, header, frame.rgb, "rgb8"))
    if frame.depth_m is not None:
        topics.write("/depth", stamp_ns, _image(topics, header, depth_to_millimetres(frame.depth_m), "16UC1"))


def _image(topics: _Topics, header: Any, pixels: np.ndarray, encoding: str) -> Any:
    data = np.ascontiguousarray(pixels)
    return topics.type("sensor_msgs/msg/Image")(
        header=header,
        height=data.shape[0],
        width=data.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.strides[0],
        data=data.reshape(-1).view(np.uint8),
    )
