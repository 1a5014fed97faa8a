"""Writes rooms as ROS bags, RGB-D folders and videos, each with a scene file beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.recordings.bag_writer import write_bag
from spatial_mllm_ros.recordings.rgbd_folder import write_rgbd_folder
from spatial_mllm_ros.rooms.clips import Clip, ClipConfig, make_clips
from spatial_mllm_ros.rooms.renderer.sensor import CAMERAS
from spatial_mllm_ros.scene_questions.scene_annotation import write_scene
from spatial_mllm_ros.storage import whole_file

FORMATS = ("mcap", "sqlite3", "video", "rgbd")


@dataclass(frozen=True)
class RecordingConfig:
    """How a room is recorded: from the start of the walk, for ``frames / rate_hz`` seconds."""

    frames: int = 300
    rate_hz: float = 15.0
    width_px: int = 640
    height_px: int = 480
    realistic: bool = True
    blur: bool = True  #: motion blur, if the camera is realistic

    def clip(self) -> ClipConfig:
        """The configuration of the recording's clip."""
        if self.rate_hz <= 0:
            raise ConfigurationError(f"The rate is {self.rate_hz} Hz; it must be above 0.")
        sensor = CAMERAS[("realistic" if self.blur else "noisy") if self.realistic else "perfect"]
        return ClipConfig(
            self.frames, self.width_px, self.height_px, self.rate_hz, focal=(0.6, 0.85), sensor=sensor, workers=2
        )


def scene_path(recording: Path) -> Path:
    """The path of a recording's scene file, ``NAME.scene.json`` beside it."""
    return recording.with_name(f"{recording.stem if recording.suffix == '.mp4' else recording.name}.scene.json")


def write_room(out_dir: Path, seed: int, form: str, config: RecordingConfig) -> Path:
    """Renders one world and writes ``rooms_SEED`` (a bag, a folder or an .mp4) and its scene file.

    Returns:
        The path of the recording.

    Raises:
        SourceError: the recording exists or cannot be written.
        ConfigurationError: an unknown format, or an impossible size.
    """
    if form not in FORMATS:
        raise ConfigurationError(f"The format {form!r} does not exist; use one of {', '.join(FORMATS)}.")
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / (f"rooms_{seed:09d}" + (".mp4" if form == "video" else ""))
    if path.exists():
        raise SourceError(f"{path} exists already; remove it or write to another folder.")
    clip = make_clips([seed], config.clip())[0]
    write_clip(path, clip, form, config.rate_hz)
    return path


def write_clip(path: Path, clip: Clip, form: str, rate_hz: float) -> None:
    """Writes a clip in one of ``FORMATS`` with its scene file beside it; ``rate_hz`` is the video's."""
    if form == "video":
        _write_video(path, clip.frames(), rate_hz)
    elif form == "rgbd":
        write_rgbd_folder(path, clip.frames())
    else:
        write_bag(path, clip.frames(), storage=form)
    write_scene(scene_path(path), clip.annotation)


def _write_video(path: Path, frames: Iterable[Frame], rate_hz: float) -> None:
    """MPEG-4 in an .mp4 file: the codec that every build of OpenCV has."""
    with whole_file(path) as part:
        _write_frames(part, frames, rate_hz)


def _write_frames(path: Path, frames: Iterable[Frame], rate_hz: float) -> None:
    writer = None
    try:
        for frame in frames:
            if writer is None:
                height, width = frame.rgb.shape[:2]
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate_hz, (width, height))
                if not writer.isOpened():
                    raise SourceError(f"OpenCV cannot write the video {path}; is the folder writable?")
            writer.write(np.ascontiguousarray(frame.rgb[:, :, ::-1]))
    finally:
        if writer is not None:
            writer.release()
