"""A small checkpoint whose random text depends on what it is shown, and three small rooms with their questions."""

import json
from pathlib import Path

import pytest

from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm, load_spatial_mllm
from spatial_mllm_ros.models.small.random_checkpoint import write_random_checkpoint
from spatial_mllm_ros.scoring.rooms.baselines import SeenClip
from spatial_mllm_ros.scoring.rooms.room_set import AskedRoom, RoomSet, RoomSetConfig

SMALL = RoomSetConfig(worlds=3, frames=4, compared_frames=(3, 6), candidates=10, width_px=84, height_px=56)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_random_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    config["pixel_budget"] = {"min_px": 28 * 28, "max_px": 84 * 56, "pil_resize": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def loaded(checkpoint: Path) -> LoadedSpatialMllm:
    return load_spatial_mllm(checkpoint)


@pytest.fixture(scope="session")
def rooms() -> list[AskedRoom]:
    return [room for group in RoomSet(SMALL) for room in group]


@pytest.fixture(scope="session")
def seen(rooms) -> SeenClip:
    return SeenClip(rooms[0].clip, rooms[0].uniform, SeenClip(rooms[1].clip, rooms[1].uniform))
