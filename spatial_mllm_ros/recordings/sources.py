"""Opens any kind of recording: RGB-D folder, folder of images, video file, ROS 2 bag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.bag_topics import BagTopics
from spatial_mllm_ros.recordings.bags import BAG_SUFFIXES, Bag, bag_path
from spatial_mllm_ros.recordings.image_folder import ImageFolder, image_files
from spatial_mllm_ros.recordings.rgbd_folder import RgbdFolder, is_rgbd_folder
from spatial_mllm_ros.recordings.video import VIDEO_SUFFIXES, VideoFile

SelfT = TypeVar("SelfT")


class FrameSource(Protocol):
    """A recording; each iteration is a pass over its frames in strictly growing stamps.

    Attributes:
        name: the recording's own name, without the folder it lies in.
        kind: ``rgbd_folder``, ``image_folder``, ``video`` or ``bag``.
        frame_count: colour images in the recording, good and broken ones; None where it is not known beforehand.
        rejected: how many frames the current or last pass left out, by cause.
    """

    name: str
    kind: str
    frame_count: int | None
    rejected: Counter[str]

    def __iter__(self) -> Iterator[Frame]:
        """Frames in stamp order; SourceError where the recording cannot be read further or has no usable frame."""
        ...

    def close(self) -> None:
        """Closes open files."""
        ...

    def __enter__(self: SelfT) -> SelfT: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def open_source(
    path: Path | str,
    *,
    rate_hz: float | None = None,
    intrinsics: Intrinsics | None = None,
    topics: BagTopics | None = None,
) -> FrameSource:
    """Opens a recording of whatever kind is found at ``path``.

    Args:
        path: a folder like those of 7-Scenes (``*.color.jpg``, ``*.depth.png``, ``*.pose.txt``), a folder of images, a
            video file, or a ROS 2 bag (its folder, or one ``.mcap`` or ``.db3`` file).
        rate_hz: images per second of a folder of images (default 1); frame numbers per second of an RGB-D folder
            (default 30). Videos and bags have a clock of their own.
        intrinsics: the camera, in place of the recording's own; scaled where the image has another size.
        topics: the topics of a bag to read; by default they are found by their types.

    Raises:
        SourceError: ``path`` does not exist or cannot be read; the message says what would help.
        ConfigurationError: this kind of recording does not have one of the options.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"{path} does not exist; give a folder of frames, a video file or a ROS 2 bag.")
    bag = bag_path(path)
    if bag is not None:
        _refuse("rate_hz", rate_hz, "a bag has stamps of its own")
        return Bag(bag, topics=topics, intrinsics=intrinsics)
    _refuse("topics", topics, "only a bag has topics")
    if path.is_dir():
        if is_rgbd_folder(path):
            return RgbdFolder(path, rate_hz=rate_hz, intrinsics=intrinsics)
        if image_files(path):
            return ImageFolder(path, rate_hz=rate_hz, intrinsics=intrinsics)
        raise SourceError(
            f"The folder {path} holds no recording: neither NAME-NUMBER.color.jpg with NAME-NUMBER.depth.png files, "
            "nor JPEG or PNG images, nor a bag (metadata.yaml)."
        )
    if path.suffix.lower() in VIDEO_SUFFIXES:
        _refuse("rate_hz", rate_hz, "a video has a clock of its own")
        return VideoFile(path, intrinsics=intrinsics)
    raise SourceError(
        f"{path} is neither a video ({', '.join(VIDEO_SUFFIXES)}) nor a bag ({', '.join(BAG_SUFFIXES)}) by its name; "
        "give a file of one of these kinds, or a folder."
    )


def _refuse(name: str, value: object, why: str) -> None:
    if value is not None:
        raise ConfigurationError(f"The option {name} cannot be used here: {why}.")
