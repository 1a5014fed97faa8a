"""The executable `play_source`: publishes a recording through ROS, as a camera would."""

from __future__ import annotations

import argparse
import array
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from spatial_mllm_ros.errors import ConfigurationError, SpatialMllmError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.poses import quaternion_from_matrix
from spatial_mllm_ros.recordings.bag_topics import BagTopics
from spatial_mllm_ros.recordings.recording import counts_in_words
from spatial_mllm_ros.recordings.rgbd_folder import depth_to_millimetres
from spatial_mllm_ros.recordings.sources import FrameSource, open_source
from spatial_mllm_ros.ros.conversions import camera_info_message, time_message
from spatial_mllm_ros.ros.environment import use_shared_memory_profile

if TYPE_CHECKING:
    from rclpy.publisher import Publisher

_NS = 1_000_000_000
_JPEG_QUALITY = 95
_DEFAULT_FRAME_ID = "camera_optical_frame"
_KEPT_MESSAGES = 1000  # of a reliable topic, for subscribers that are slow to confirm them
_SETTLE_NS = _NS // 2  # a subscriber announces its topics one after the other, within some milliseconds


class NoSubscriberError(SpatialMllmError):
    """Nobody listens on the image topic."""

    code = "NO_SUBSCRIBER"


@dataclass(frozen=True)
class PlayerConfig:
    """How a recording is published.

    Attributes:
        rate: speed, 1 as recorded, 2 twice as fast.
        stamps: ``now`` shifts the stamps to the present, and divides their intervals by ``rate``; ``original`` keeps
            them and publishes them on ``/clock`` for nodes with ``use_sim_time``.
        loop: start again at the end, until stopped.
        compressed: publish JPEG on ``image/compressed`` instead of raw images on ``image``.
        reliability: QoS of all topics, ``reliable`` or ``best_effort``.
        scene_frame: header.frame_id of the poses.
        wait_s: how long to wait for a subscriber before giving up.
    """

    rate: float = 1.0
    stamps: str = "now"
    loop: bool = False
    compressed: bool = False
    reliability: str = "reliable"
    scene_frame: str = "map"
    wait_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ConfigurationError(f"rate is {self.rate}; the speed must be above 0 (1: as recorded).")
        if not self.wait_s >= 0:
            raise ConfigurationError(f"wait_s is {self.wait_s}; it must be 0 or more seconds.")


class Player:
    """The publishers of one camera; depth, calibration and pose are published if the first frame has them."""

    def __init__(self, node: Node, first: Frame, config: PlayerConfig, stop: threading.Event) -> None:
        self._node = node
        self._stop = stop
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._config = config
        reliable = config.reliability == "reliable"
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=_KEPT_MESSAGES if reliable else 10, reliability=policy)
        image = (CompressedImage, "image/compressed") if config.compressed else (Image, "image")
        self._image = node.create_publisher(*image, qos)
        self._info = node.create_publisher(CameraInfo, "camera_info", qos) if first.intrinsics else None
        self._depth = node.create_publisher(Image, "depth", qos) if first.depth_m is not None else None
        has_pose = first.scene_from_cam is not None
        self._pose = node.create_publisher(PoseStamped, "camera_pose", qos) if has_pose else None
        self._clock = node.create_publisher(Clock, "/clock", 10) if config.stamps == "original" else None
        self._publishers = [p for p in (self._image, self._info, self._depth, self._pose) if p is not None]

    def wait_for_subscriber(self) -> None:
        """Returns when the image topic has a subscriber and every known subscriber is connected, or on a stop.

        Raises:
            NoSubscriberError: not within ``wait_s``; the message says whether a subscriber had another QoS.
        """
        end_ns = time.monotonic_ns() + int(self._config.wait_s * _NS)
        settled_ns: int | None = None
        while not self._stop.is_set():
            now_ns = time.monotonic_ns()
            unmatched = [p.topic_name for p in self._publishers if self._seen(p) > p.get_subscription_count()]
            if self._image.get_subscription_count() == 0 or unmatched:
                settled_ns = None
            elif settled_ns is None:
                settled_ns = now_ns + _SETTLE_NS
            elif now_ns >= settled_ns:
                return
            if now_ns >= end_ns and settled_ns is None:
                self._give_up(unmatched)
            self._executor.spin_once(timeout_sec=0.05)

    def _seen(self, publisher: Publisher[object]) -> int:
        count: int = self._node.count_subscribers(publisher.topic_name)
        return count

    def _give_up(self, unmatched: list[str]) -> None:
        waited = f"within {self._config.wait_s:g} s"
        if unmatched:
            raise NoSubscriberError(
                f"A subscriber on {', '.join(unmatched)} could not be connected {waited}: its QoS does not accept "
                f"'{self._config.reliability}'. Give --reliability reliable, or make the subscriber best effort."
            )
        raise NoSubscriberError(
            f"Nobody subscribed to {self._image.topic_name} {waited}; start the node first, and check topic names "
            "(--ros-args -r image:=/...) and ROS_DOMAIN_ID."
        )

    def publish(self, frame: Frame, stamp_ns: int) -> None:
        """Publishes one frame on all topics, the image last, because the others are matched to it."""
        if self._clock is not None:
            self._clock.publish(Clock(clock=time_message(stamp_ns)))
        header = Header(stamp=time_message(stamp_ns), frame_id=frame.camera_frame_id or _DEFAULT_FRAME_ID)
        if self._info is not None and frame.intrinsics is not None:
            self._info.publish(camera_info_message(frame.intrinsics, header))
        if self._pose is not None and frame.scene_from_cam is not None:
            self._pose.publish(_pose(stamp_ns, self._config.scene_frame, frame.scene_from_cam))
        if self._depth is not None and frame.depth_m is not None:
            self._depth.publish(_image(header, depth_to_millimetres(frame.depth_m), "16UC1"))
        self._image.publish(_jpeg(header, frame.rgb) if self._config.compressed else _image(header, frame.rgb, "rgb8"))

    def finish(self) -> bool:
        """Waits until reliable subscribers have everything and others had time to read; False if some have not."""
        delivered = [publisher.wait_for_all_acked(Duration(seconds=10)) for publisher in self._publishers]
        end_ns = time.monotonic_ns() + _SETTLE_NS
        while not self._stop.is_set() and time.monotonic_ns() < end_ns:
            self._executor.spin_once(timeout_sec=0.05)
        return all(delivered)


def play(node: Node, source: FrameSource, config: PlayerConfig, stop: threading.Event) -> int:
    """Publishes ``source`` at the pace of its stamps until its end (with ``loop`` for ever) or until ``stop`` is set.

    Returns:
        The frames published.

    Raises:
        SourceError: the recording cannot be read.
        NoSubscriberError: see ``Player.wait_for_subscriber``.
    """
    player: Player | None = None
    count = 0
    start_wall_ns = start_stamp_ns = 0
    for position_ns, frame in _timeline(source, config.loop):
        if player is None:
            player = Player(node, frame, config, stop)
            player.wait_for_subscriber()
            start_wall_ns, start_stamp_ns = time.monotonic_ns(), time.time_ns()
        elapsed_ns = round(position_ns / config.rate)
        if not _sleep_until(start_wall_ns + elapsed_ns, stop):
            return count
        player.publish(frame, frame.stamp_ns if config.stamps == "original" else start_stamp_ns + elapsed_ns)
        count += 1
    if player is not None and not player.finish():
        node.get_logger().warning("Not every subscriber has confirmed every message within 10 s.")
    return count


def _timeline(source: FrameSource, loop: bool) -> Iterator[tuple[int, Frame]]:
    """Frames with the time since the first one, in ns; between two rounds lies the last interval of the recording."""
    position_ns = period_ns = 0
    while True:
        previous_ns: int | None = None
        for frame in source:
            if previous_ns is not None:
                period_ns = frame.stamp_ns - previous_ns
                position_ns += period_ns
            previous_ns = frame.stamp_ns
            yield position_ns, frame
        if not loop:
            return
        position_ns += period_ns or _NS


def _sleep_until(wall_ns: int, stop: threading.Event) -> bool:
    """Sleeps until the steady clock reaches ``wall_ns``; False when ``stop`` was set before."""
    return not stop.wait(max(0.0, (wall_ns - time.monotonic_ns()) / _NS))


def _bytes(values: np.ndarray) -> array.array[int]:
    # rclpy takes an array of bytes as it is; it checks every single byte of a numpy array.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


def _image(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    height, width = pixels.shape[:2]
    step = pixels.nbytes // height
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(sys.byteorder == "big" and pixels.itemsize > 1),
        step=step,
        data=_bytes(pixels),
    )


def _jpeg(header: Header, rgb: np.ndarray) -> CompressedImage:
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return CompressedImage(header=header, format="jpeg", data=_bytes(data))


def _pose(stamp_ns: int, scene_frame: str, scene_from_cam: np.ndarray) -> PoseStamped:
    message = PoseStamped(header=Header(stamp=time_message(stamp_ns), frame_id=scene_frame))
    place, turn = message.pose.position, message.pose.orientation
    place.x, place.y, place.z = (float(value) for value in scene_from_cam[:3, 3])
    turn.x, turn.y, turn.z, turn.w = (float(value) for value in quaternion_from_matrix(scene_from_cam[:3, :3]))
    return message


def _parser() -> argparse.ArgumentParser:
    defaults = PlayerConfig()
    parser = argparse.ArgumentParser(
        prog="play_source",
        description="Publishes a recording on image (or image/compressed), depth, camera_info and camera_pose.",
        epilog="Topics are remapped as usual: play_source SOURCE --ros-args -r image:=/camera/image",
    )
    parser.add_argument("source", type=Path, help="RGB-D folder, folder of images, video file or ROS 2 bag")
    parser.add_argument("--rate", type=float, default=defaults.rate, help="speed; 1: as recorded")
    parser.add_argument("--source-rate-hz", type=float, default=None, help="images per second of a folder of images")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="NAME=TOPIC",
        help="of a bag; NAME: color, depth, camera_info, pose",
    )
    parser.add_argument("--stamps", choices=("now", "original"), default=defaults.stamps)
    parser.add_argument("--loop", action="store_true", help="start again at the end, until stopped")
    parser.add_argument("--compressed", action="store_true", help="JPEG on image/compressed instead of raw on image")
    parser.add_argument("--reliability", choices=("reliable", "best_effort"), default=defaults.reliability)
    parser.add_argument("--scene-frame", default=defaults.scene_frame, help="frame_id of camera_pose")
    parser.add_argument("--wait-s", type=float, default=defaults.wait_s, help="how long to wait for a subscriber")
    return parser


def main(args: list[str] | None = None) -> int:
    """Entry point of `play_source`: 0 when everything was published or a signal came, 1 on an error."""
    args = sys.argv if args is None else args
    options = _parser().parse_args(remove_ros_args(args)[1:])
    try:
        use_shared_memory_profile()
    except SpatialMllmError as error:
        sys.stderr.write(f"play_source: {error}\n")
        return 1
    # A signal may come at any line, also in rclpy's constructors, so its handler only asks to stop.
    stop = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("spatial_player")
    logger = node.get_logger()
    try:
        config = PlayerConfig(
            rate=options.rate,
            stamps=options.stamps,
            loop=options.loop,
            compressed=options.compressed,
            reliability=options.reliability,
            scene_frame=options.scene_frame,
            wait_s=options.wait_s,
        )
        topics = BagTopics.from_options(options.topic) if options.topic else None
        with open_source(options.source, rate_hz=options.source_rate_hz, topics=topics) as source:
            count = play(node, source, config, stop)
            left_out = f"; left out: {counts_in_words(source.rejected)}" if source.rejected else ""
            logger.info(f"Published {count} frames of {source.name}{left_out}.")
    except SpatialMllmError as error:
        logger.error(f"{error.code}: {error}")
        return 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
