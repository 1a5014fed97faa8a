"""The topics of a bag that are read: found by their types, or named by the caller."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields

from spatial_mllm_ros.errors import ConfigurationError, SourceError

logger = logging.getLogger(__name__)

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSE = "geometry_msgs/msg/PoseStamped"
TF = "tf2_msgs/msg/TFMessage"

_GREY = ("mono8", "8UC1", "mono16")
_DEPTH = ("16UC1", "32FC1", "mono16")


@dataclass(frozen=True)
class BagTopics:
    """The topics that the caller wants. None: find the topic; "" (depth, camera_info and pose only): leave it out.

    Attributes:
        color: Image or CompressedImage topic.
        depth: Image topic (16UC1, 32FC1). A named one is taken to be registered to the colour camera.
        camera_info: CameraInfo topic of the colour camera.
        pose: PoseStamped topic with the pose of the camera's optical frame; "" leaves tf out as well.
        fixed_frame: tf frame of the poses; None: the first of ``map``, ``odom`` and ``world`` that tf leads to.
    """

    color: str | None = None
    depth: str | None = None
    camera_info: str | None = None
    pose: str | None = None
    fixed_frame: str | None = None

    @classmethod
    def from_options(cls, options: Sequence[str]) -> BagTopics:
        """Reads options of a command line, such as ``color=/left/image_raw`` or ``depth=`` (leave out).

        Raises:
            ConfigurationError: an option has another name, no ``=``, or an empty colour topic or frame.
        """
        values: dict[str, str] = {}
        names = [field.name for field in fields(cls)]
        for option in options:
            name, equals, topic = option.partition("=")
            if name not in names or not equals or (not topic and name in ("color", "fixed_frame")):
                raise ConfigurationError(
                    f"The topic option {option!r} must be NAME=TOPIC, NAME one of {', '.join(names)}."
                )
            values[name] = topic
        return cls(**values)


@dataclass(frozen=True)
class TopicSample:
    """A topic of the bag, described by its first message.

    Attributes:
        encoding: of an Image, or the ``format`` of a CompressedImage; "" for other types.
        frame_id: of the header; "" where there is none.
    """

    name: str
    message_type: str
    encoding: str = ""
    frame_id: str = ""

    @property
    def is_depth(self) -> bool:
        """Whether the encoding is one of depth images; mono16 is only where the topic's name contains "depth"."""
        if self.message_type != IMAGE or self.encoding not in _DEPTH:
            return False
        return self.encoding != "mono16" or "depth" in self.name.lower()

    @property
    def is_color(self) -> bool:
        """Whether this can be the colour image (grey ones included)."""
        if self.message_type == COMPRESSED:
            return "compresseddepth" not in self.encoding.lower().replace(" ", "") and "depth" not in self.name.lower()
        return self.message_type == IMAGE and not self.is_depth and self.encoding not in _DEPTH

    @property
    def is_grey(self) -> bool:
        """Whether the image has no colour."""
        return self.encoding.split(";")[0].strip() in _GREY


@dataclass(frozen=True)
class ChosenTopics:
    """The topics to read; None where there is none or where it is left out."""

    color: TopicSample
    depth: TopicSample | None
    camera_info: str | None
    pose: str | None


def choose_topics(
    samples: Iterable[TopicSample], wanted: BagTopics, bag: str, *, frames_in_tf: Collection[str] = ()
) -> ChosenTopics:
    """Finds the colour, depth, camera_info and pose topics.

    Args:
        samples: the topics of types Image, CompressedImage, CameraInfo and PoseStamped that hold messages.
        wanted: what the caller asks for.
        bag: name of the bag, for messages.
        frames_in_tf: frames whose pose tf gives. For a camera among them no pose topic is looked for, because tf names
            the frame that a pose belongs to.

    Raises:
        SourceError: the bag has no colour topic, lacks a named topic, or has several topics that could be meant.
    """
    topics = {sample.name: sample for sample in samples}
    color = _color(topics, wanted.color, bag)
    depth = _depth(topics, wanted.depth, color, bag)
    camera_info = _camera_info(topics, wanted.camera_info, color, bag)
    in_tf = wanted.pose is None and color.frame_id.lstrip("/") in frames_in_tf
    pose = None if in_tf else _optional(topics, wanted.pose, POSE, "pose", bag)
    return ChosenTopics(color, depth, camera_info, pose)


def _color(topics: dict[str, TopicSample], wanted: str | None, bag: str) -> TopicSample:
    if wanted is not None:
        return topics[_named(topics, wanted, (IMAGE, COMPRESSED), "color", bag)]
    candidates = [topic for topic in topics.values() if topic.is_color]
    if any(not topic.is_grey for topic in candidates):
        candidates = [topic for topic in candidates if not topic.is_grey]
    raw = {topic.name for topic in candidates if topic.message_type == IMAGE}
    # image_transport publishes the same pictures on BASE and on BASE/compressed.
    candidates = [topic for topic in candidates if topic.name in raw or topic.name.rpartition("/")[0] not in raw]
    if not candidates:
        seen = ", ".join(f"{t.name} ({t.message_type} {t.encoding})" for t in topics.values()) or "no topic of use"
        raise SourceError(f"The bag {bag!r} has no colour image topic; it has: {seen}.")
    return _only(candidates, "color", "colour image", bag)


def _depth(topics: dict[str, TopicSample], wanted: str | None, color: TopicSample, bag: str) -> TopicSample | None:
    if wanted == "":
        return None
    if wanted is not None:
        return topics[_named(topics, wanted, (IMAGE,), "depth", bag)]
    candidates = [topic for topic in topics.values() if topic.is_depth]
    registered = [topic for topic in candidates if topic.frame_id == color.frame_id]
    if not candidates:
        if packed := [topic.name for topic in topics.values() if "compresseddepth" in topic.name.lower()]:
            logger.warning("Bag %r: %s is not read; depth must be an Image (16UC1 or 32FC1).", bag, ", ".join(packed))
        return None
    if not registered:
        raise SourceError(
            f"The bag {bag!r} has depth in frame {candidates[0].frame_id!r} ({candidates[0].name}) but colour in "
            f"{color.frame_id!r}: the depth is not registered to the colour camera. Record the aligned depth topic. "
            f"If the depth is registered nevertheless, give --topic depth={candidates[0].name}; to leave it out, give "
            "--topic depth="
        )
    return _only(registered, "depth", "depth image", bag)


def _camera_info(topics: dict[str, TopicSample], wanted: str | None, color: TopicSample, bag: str) -> str | None:
    if wanted is not None:
        return _optional(topics, wanted, CAMERA_INFO, "camera_info", bag)
    base = color.name.removesuffix("/compressed").rpartition("/")[0]
    sibling = f"{base}/camera_info"
    if sibling in topics and topics[sibling].message_type == CAMERA_INFO:
        return sibling
    same_camera = [t.name for t in topics.values() if t.message_type == CAMERA_INFO and t.frame_id == color.frame_id]
    if len(same_camera) == 1:
        return same_camera[0]
    logger.warning("Bag %r: no camera_info belongs to %s; the camera is not calibrated.", bag, color.name)
    return None


def _optional(topics: dict[str, TopicSample], wanted: str | None, kind: str, option: str, bag: str) -> str | None:
    if wanted == "":
        return None
    if wanted is not None:
        return _named(topics, wanted, (kind,), option, bag)
    candidates = [topic for topic in topics.values() if topic.message_type == kind]
    return _only(candidates, option, kind, bag).name if candidates else None


def _named(topics: dict[str, TopicSample], name: str, kinds: tuple[str, ...], option: str, bag: str) -> str:
    full = name if name.startswith("/") else f"/{name}"
    if full in topics and topics[full].message_type in kinds:
        return full
    there = ", ".join(sorted(t.name for t in topics.values() if t.message_type in kinds)) or "none"
    raise SourceError(f"The bag {bag!r} has no topic {full} of type {' or '.join(kinds)} ({option}); it has: {there}.")


def _only(candidates: list[TopicSample], option: str, what: str, bag: str) -> TopicSample:
    if len(candidates) > 1:
        listed = ", ".join(sorted(topic.name for topic in candidates))
        raise SourceError(
            f"The bag {bag!r} has {len(candidates)} topics that could be the {what}: {listed}. Name one, for example: "
            f"--topic {option}={candidates[0].name}"
        )
    return candidates[0]
