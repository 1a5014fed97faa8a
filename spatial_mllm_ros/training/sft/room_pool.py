"""Rooms that are rendered once and used in many steps, so that a batch can have a few frames each of many rooms.

Frames of one room show the same things, so a step on few rooms learns names for these rooms only. To render new rooms
for every few frames would take longer than to train on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.poses import inverse_pose
from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget, prepare_video
from spatial_mllm_ros.rooms.clips import Clip, ClipConfig
from spatial_mllm_ros.rooms.stream import RoomStream, StreamConfig
from spatial_mllm_ros.training.sft.batch import SftRow
from spatial_mllm_ros.training.supervision.tokens import TokenTargets, token_targets

_LONGEST_STRIDE = 3  # most steps of the clip between two frames of a row: their views should overlap


@dataclass(frozen=True, eq=False)
class RoomFrames:
    """P frames of one room, in order of time, with their targets.

    Attributes:
        rgb: uint8 [P, H, W, 3].
        scene_from_cam: float64 [P, 4, 4].
        targets: targets of all P frames.
    """

    rgb: np.ndarray
    scene_from_cam: np.ndarray
    targets: TokenTargets

    @classmethod
    def of_clip(cls, clip: Clip) -> RoomFrames:
        """The part of a clip that a pool keeps."""
        return cls(clip.rgb.cpu().numpy(), clip.scene_from_cam, token_targets(clip))

    def row(self, frames: np.ndarray, budget: PixelBudget) -> SftRow:
        """The row of the frames with these numbers, without dialogues; the first of them is the first camera."""
        in_camera = self.targets.in_camera_m[frames]
        first_from_cam = inverse_pose(self.scene_from_cam[frames[0]]) @ self.scene_from_cam[frames]
        turn, shift = (torch.from_numpy(part).float() for part in (first_from_cam[:, :3, :3], first_from_cam[:, :3, 3]))
        in_first = torch.einsum("sij,snj->sni", turn, in_camera) + shift[:, None]
        targets = TokenTargets(self.targets.grid, self.targets.shown[frames], in_camera, in_first)
        return SftRow(prepare_video(list(self.rgb[frames]), budget), [], targets)


class RoomPool:
    """A process's share of the rooms, in memory: 30 KB per frame of 112x84.

    Args:
        rooms: number of rooms of all processes together.
        clip: the clip that is rendered of each room.
        first: number of the first room in the stream.
        rank, ranks: number of this process, and how many there are.

    Raises:
        ConfigurationError: fewer rooms than processes.
    """

    def __init__(self, rooms: int, clip: ClipConfig, budget: PixelBudget, *, first: int, rank: int, ranks: int) -> None:
        if rooms < ranks:
            raise ConfigurationError(
                f"data.rooms_pool is {rooms}; each of the {ranks} processes needs a room of its own."
            )
        stream = RoomStream(StreamConfig(worlds=1, clip=clip, questions_per_type=0))
        numbers = tqdm(range(first + rank, first + rooms, ranks), desc="rooms", disable=rank > 0)
        self._rooms = [RoomFrames.of_clip(stream.batch(number).clips[0]) for number in numbers]
        self._budget = budget

    def rows(self, count: int, frames: int, seed: tuple[int, ...]) -> list[SftRow]:
        """``count`` rows of ``frames`` evenly spaced frames each, of rooms drawn at random: the same for one seed."""
        random = np.random.default_rng(seed)
        rows = []
        for room in random.choice(len(self._rooms), count, replace=count > len(self._rooms)):
            held = self._rooms[room]
            total = len(held.rgb)
            stride = int(random.integers(1, min(_LONGEST_STRIDE, (total - 1) // (frames - 1)) + 1))
            start = int(random.integers(total - stride * (frames - 1)))
            rows.append(held.row(start + stride * np.arange(frames), self._budget))
        return rows
