"""Geometry batches from RGB-D recordings: frames at a distance from each other, with depth and poses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from spatial_mllm_ros.errors import FrameRejectedError, SampleRejectedError, TrainingError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.poses import inverse_pose
from spatial_mllm_ros.recordings.rgbd_folder import RgbdFolder
from spatial_mllm_ros.training.geometry.batch import PATCH_PX, GeometryBatch
from spatial_mllm_ros.training.geometry.config import GeometryDataConfig
from spatial_mllm_ros.training.run_folder import BadSamples

_TRIES = 50
_HELD_OUT = 1  # second number of the seed of held-out samples; training samples have 0


class RecordedBatches:
    """See ``batch.GeometryBatches``. A broken frame is reported, and another sample is drawn.

    Args:
        data: the recordings, and how samples are cut from them.
        batch_size: samples per batch.
        seed: decides which samples are drawn.
        bad: broken frames are reported to it, with their position in the recording as the line.

    Raises:
        TrainingError: no recording, or one that is too short for one sample.
        SourceError: a folder is not an RGB-D recording.
    """

    def __init__(self, data: GeometryDataConfig, *, batch_size: int, seed: int, bad: BadSamples) -> None:
        self._data, self._batch_size, self._seed, self._bad = data, batch_size, seed, bad
        if not data.recordings:
            raise TrainingError("There is nothing to train on; name RGB-D folders with --data.recordings.")
        self._recordings = [(Path(folder), RgbdFolder(Path(folder))) for folder in data.recordings]
        self._spans: list[tuple[range, range]] = []  # positions for training, held out
        self.sha256: dict[str, str] = {}
        for folder, recording in self._recordings:
            total = recording.frame_count or 0
            first_held_out = total - int(data.held_out * total)
            if first_held_out < data.frames:
                raise TrainingError(
                    f"{folder} has {first_held_out} frames for training, fewer than the {data.frames} of a sample; use "
                    "fewer frames per sample, hold out less, or leave the recording out."
                )
            self._spans.append((range(first_held_out), range(first_held_out, total)))
            self.sha256[str(folder)] = _folder_sha256(folder)

    @property
    def rejected(self) -> int:
        """Number of broken frames so far."""
        return self._bad.total

    def batch(self, index: int) -> GeometryBatch:
        """See GeometryBatches."""
        start = index * self._batch_size
        return _stacked([self._sample(0, number) for number in range(start, start + self._batch_size)])

    def held_out(self, count: int) -> Sequence[GeometryBatch]:
        """See GeometryBatches."""
        if not any(len(held) >= self._data.frames for _, held in self._spans):
            return []
        return [_stacked([self._sample(_HELD_OUT, number)]) for number in range(count)]

    def _sample(self, kind: int, number: int) -> GeometryBatch:
        random = np.random.default_rng((self._seed, kind, number))
        usable = [index for index, spans in enumerate(self._spans) if len(spans[kind]) >= self._data.frames]
        for _ in range(_TRIES):
            which = int(random.choice(usable))
            span = self._spans[which][kind]
            longest = min(self._data.longest_step, (len(span) - 1) // (self._data.frames - 1))
            step = int(random.integers(1, longest + 1))
            start = int(random.integers(0, len(span) - step * (self._data.frames - 1)))
            positions = [span[start + step * place] for place in range(self._data.frames)]
            if random.random() < 0.5:
                positions.reverse()
            frames = [self._frame(which, position) for position in positions]
            if all(frame is not None for frame in frames):
                return _sample_of([frame for frame in frames if frame is not None], self._data.width_px)
        raise TrainingError(
            f"{_TRIES} samples in a row had a broken frame; the file bad_samples.jsonl of the run says why for each."
        )

    def _frame(self, which: int, position: int) -> Frame | None:
        folder, recording = self._recordings[which]
        try:
            frame = recording.frame_at(position)
            if frame.scene_from_cam is None or frame.intrinsics is None or frame.depth_m is None:
                raise FrameRejectedError("pose", "The frame has no pose; add its .pose.txt file.")
        except FrameRejectedError as error:
            self._bad.report(folder, position + 1, SampleRejectedError(error.cause, str(error)))
            return None
        return frame


def _folder_sha256(folder: Path) -> str:
    """Hash of the names and sizes of all files and of the text of poses and cameras; to hash pixels takes minutes."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
        if path.suffix == ".txt":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _sample_of(frames: Sequence[Frame], width_px: int) -> GeometryBatch:
    """One sample, B = 1; all frames are resized to the size of the first one."""
    height, width = frames[0].rgb.shape[:2]
    height_px = max(PATCH_PX, round(width_px * height / width / PATCH_PX) * PATCH_PX)
    images, depths, poses, cameras = [], [], [], []
    for frame in frames:
        resized = Image.fromarray(frame.rgb).resize((width_px, height_px), Image.Resampling.BICUBIC)
        images.append(np.asarray(resized, np.float32).transpose(2, 0, 1) / 255)
        depths.append(_nearest(frame.depth_m, height_px, width_px))  # type: ignore[arg-type]
        poses.append(inverse_pose(frame.scene_from_cam)[:3])  # type: ignore[arg-type]
        cameras.append(frame.intrinsics.resized(width_px, height_px).matrix())  # type: ignore[union-attr]
    depth_m = torch.from_numpy(np.stack(depths))[None]
    return GeometryBatch(
        images=torch.from_numpy(np.stack(images))[None],
        depth_m=depth_m.nan_to_num(0.0),
        mask=depth_m.isfinite() & (depth_m > 0),
        cam_from_world=torch.from_numpy(np.stack(poses)).float()[None],
        intrinsics_px=torch.from_numpy(np.stack(cameras)).float()[None],
    )


def _nearest(depth_m: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """A depth image at another size, without interpolation: the value at each new pixel's centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip((height_px, width_px), depth_m.shape, strict=True)
    )
    return depth_m[rows[:, None], columns]


def _stacked(samples: Sequence[GeometryBatch]) -> GeometryBatch:
    return GeometryBatch(*(torch.cat(values) for values in zip(*(vars(s).values() for s in samples), strict=True)))
