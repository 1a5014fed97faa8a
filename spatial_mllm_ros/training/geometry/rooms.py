"""Geometry batches straight from the generated rooms: new rooms in every batch, nothing on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from spatial_mllm_ros.geometry.poses import inverse_pose
from spatial_mllm_ros.rooms.clips import Clip, ClipConfig
from spatial_mllm_ros.rooms.stream import RoomStream, StreamConfig, first_batch_of
from spatial_mllm_ros.rooms.world.world import GENERATOR
from spatial_mllm_ros.storage import json_sha256
from spatial_mllm_ros.training.geometry.batch import PATCH_PX, GeometryBatch
from spatial_mllm_ros.training.geometry.config import GeometryDataConfig

_ASPECT = 4 / 3
_HELD_OUT = "val"


class RoomGeometryBatches:
    """See ``batch.GeometryBatches``. The batches take turns with ``data.rooms_rates_hz`` and ``data.rooms_pieces``.

    Args:
        data: frames per clip, their width (the height is 3/4 of it, to a multiple of 14) and rates.
        batch_size: rooms per batch; the frames of a room make one sample or several.
        seed: decides at which room of the split the batches begin.
    """

    def __init__(self, data: GeometryDataConfig, *, batch_size: int, seed: int) -> None:
        self._data, self._batch_size = data, batch_size
        self._first = first_batch_of(seed)
        clips = [asdict(self._clip(rate, pieces)) for rate in data.rooms_rates_hz for pieces in data.rooms_pieces]
        settings = {"generator": GENERATOR, "clips": clips}
        self.sha256 = {"rooms": json_sha256(settings)}
        self.rejected = 0  # no generated room is broken

    def batch(self, index: int) -> GeometryBatch:
        """See GeometryBatches."""
        rates, pieces = self._data.rooms_rates_hz, self._data.rooms_pieces
        # Every rate comes with every number of pieces.
        rate = rates[index // len(pieces) % len(rates)]
        return self._batch("train", self._first + index, rate, pieces[index % len(pieces)], self._batch_size)

    def held_out(self, count: int) -> Sequence[GeometryBatch]:
        """See GeometryBatches; one room of the validation split per batch, all its frames in one sample."""
        rates = self._data.rooms_rates_hz
        return [self._batch(_HELD_OUT, n, rates[n % len(rates)], 1, 1) for n in range(count)]

    def _batch(self, split: str, number: int, rate_hz: float, pieces: int, rooms: int) -> GeometryBatch:
        clip = self._clip(rate_hz, pieces)
        stream = RoomStream(StreamConfig(split=split, worlds=rooms, clip=clip, questions_per_type=0))
        whole = clips_as_batch(stream.batch(number).clips)
        return GeometryBatch(
            *(value.reshape(-1, clip.frames // pieces, *value.shape[2:]) for value in vars(whole).values())
        )

    def _clip(self, rate_hz: float, pieces: int) -> ClipConfig:
        width = self._data.width_px
        height = round(width / _ASPECT / PATCH_PX) * PATCH_PX
        frames = self._data.frames
        return ClipConfig(frames=frames, width_px=width, height_px=height, rate_hz=rate_hz, pieces=pieces)


def clips_as_batch(clips: Sequence[Clip]) -> GeometryBatch:
    """Clips of equal size as one batch; pixels that look through a window have no depth."""
    depth_m = torch.stack([clip.depth_m for clip in clips])
    mask = depth_m.isfinite() & (depth_m > 0)
    cam_from_world = np.stack([[inverse_pose(pose)[:3] for pose in clip.scene_from_cam] for clip in clips])
    cameras = np.stack([clip.intrinsics.matrix() for clip in clips])
    frames = depth_m.shape[1]
    return GeometryBatch(
        images=torch.stack([clip.rgb for clip in clips]).movedim(-1, 2).float() / 255,
        depth_m=torch.where(mask, depth_m, 0.0),
        mask=mask,
        cam_from_world=torch.from_numpy(cam_from_world).float(),
        intrinsics_px=torch.from_numpy(cameras).float()[:, None].expand(-1, frames, -1, -1),
    )
