import hashlib
import json

import numpy as np
import pytest

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.saved.save_load import SceneOrigin, save_scene
from spatial_mllm_ros.scene.scene import Scene


@pytest.fixture
def room(tmp_path):
    scene = Scene(SceneConfig(rate_hz=0.0, ring_frames=3, selected_frames=2), FakeGeometryEncoder(window_size=1))
    for t in range(5):
        pose = np.eye(4)
        pose[:3, 3] = [0.2 * t, 0.1, -0.1 * t]
        scene.add(Frame((1_700_000_000 + t) * 10**9, np.full((20, 28, 3), t, np.uint8), "cam", scene_from_cam=pose))
        scene.process()
    save_scene(scene, tmp_path / "room", origin=SceneOrigin("map"))
    return tmp_path / "room", scene


def test_inspecting_tells_what_is_held_and_that_every_hash_is_right(room, capsys, monkeypatch):
    folder, scene = room
    monkeypatch.chdir(folder.parent)
    assert main(["scene", "inspect", "room"]) == 0
    shown = capsys.readouterr().out
    chosen = scene.snapshot.selection
    for part in [
        str(folder),
        "version 1",
        "(3 recent, ",
        "2023-11-14 22:13",
        "28x20",
        "in the frame 'map'",
        f"2 frames show {chosen.covered_voxels} of {chosen.total_voxels} voxels",
        f"{sum(p.stat().st_size for p in folder.iterdir())} bytes",
        f"All {len(list(folder.iterdir())) - 1} files are as their SHA-256 says",
    ]:
        assert part in shown


def test_as_json_it_gives_the_hash_of_every_file(room, capsys):
    folder, _ = room
    assert main(["scene", "inspect", str(folder), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != "manifest.json"
    }


def test_a_damaged_scene_is_named_and_the_command_fails(room, capsys):
    folder, _ = room
    (folder / "voxels.npy").write_bytes(b"")
    assert main(["scene", "inspect", str(folder)]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.startswith("STORAGE: ")) == ("", True)
    assert "voxels.npy" in told.err
