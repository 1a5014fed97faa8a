import subprocess
import sys

import pytest

pytest.importorskip("rerun", reason="rerun-sdk (extra 'rerun') is not installed")

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.recordings.rgbd_folder import write_rgbd_folder
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips


def test_a_replay_can_be_opened_in_rerun(tmp_path):
    write_rgbd_folder(tmp_path / "clip", make_clips([7], ClipConfig(12, 96, 72, rate_hz=15.0))[0].frames())
    (tmp_path / "q.yaml").write_text("- question: Where is the crate?\n")
    arguments = ["replay", str(tmp_path / "clip"), "--questions", str(tmp_path / "q.yaml"), "--device", "cpu"]
    arguments += ["--frames", "4", "--max-new-tokens", "2", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--rerun", str(tmp_path / "clip.rrd")]) == 0
    command = [sys.executable, "-m", "rerun", "rrd", "print", str(tmp_path / "clip.rrd")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for entity in ("/scene/voxels", "/scene/path", "/scene/camera", "/evidence", "/coverage/total", "/answers"):
        assert entity in shown, entity
