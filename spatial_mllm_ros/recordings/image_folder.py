"""Folders of images: photographs, or the frames of a video."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.recording import (
    FIRST_STAMP_NS,
    IMAGE_SUFFIXES,
    Recording,
    intrinsics_for,
    natural_key,
    read_color_file,
)

DEFAULT_RATE_HZ = 1.0


def image_files(folder: Path) -> list[Path]:
    """The JPEG and PNG files of ``folder`` in natural order (frame_9 before frame_10), hidden ones left out."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted(files, key=lambda path: (natural_key(path.name), path.name))


class ImageFolder(Recording[tuple[int, Path]]):
    """JPEG and PNG files in natural order; the one at position i is stamped 1 s + i / ``rate_hz``.

    Photographs are turned upright as their EXIF orientation says; ``intrinsics`` are for the upright image.
    A broken image keeps its place in time: the stamps of the others do not depend on it.

    Raises:
        SourceError: the folder holds no image.
        ConfigurationError: ``rate_hz`` is not above 0.
    """

    kind = "image_folder"

    def __init__(self, folder: Path, *, rate_hz: float | None = None, intrinsics: Intrinsics | None = None) -> None:
        rate_hz = DEFAULT_RATE_HZ if rate_hz is None else rate_hz
        if not rate_hz > 0:
            raise ConfigurationError(f"rate_hz is {rate_hz}; images per second must be above 0.")
        self._files = image_files(folder)
        if not self._files:
            raise SourceError(f"{folder} holds no {', '.join(IMAGE_SUFFIXES)} file.")
        super().__init__(folder.resolve().name, len(self._files))
        self._rate_hz = rate_hz
        self._intrinsics = intrinsics

    def _entries(self) -> Iterable[tuple[int, Path]]:
        return enumerate(self._files)

    def _frame(self, entry: tuple[int, Path]) -> Frame:
        position, path = entry
        rgb = read_color_file(path, upright=True)
        return Frame(
            stamp_ns=FIRST_STAMP_NS + round(position * 1e9 / self._rate_hz),
            rgb=rgb,
            intrinsics=intrinsics_for(self._intrinsics, rgb),
        )
