import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.msg", reason="the interfaces are not built; run ./dev install")

import cv2

from spatial_mllm_ros.rooms.writers import RecordingConfig, write_room


def run_demo(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "spatial_mllm_ros.cli", "demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)


def test_the_demo_plays_asks_and_draws(tmp_path, small_checkpoint):
    config = RecordingConfig(frames=24, width_px=168, height_px=126, realistic=False)
    clip = write_room(tmp_path, 7, "rgbd", config)
    done = run_demo(clip, "--out", tmp_path / "out", "--checkpoint", small_checkpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Q: ") == done.stdout.count("evidence: ") == done.stdout.count("truth: ") == 7
    assert "TEXT MEANS NOTHING" in done.stdout
    assert "scale from depth" in done.stdout
    assert cv2.imread(str(tmp_path / "out" / "demo.png")).std() > 10


def test_a_recording_that_does_not_exist_is_named(tmp_path):
    done = run_demo(tmp_path / "nothing_here", "--out", tmp_path)
    assert done.returncode == 1
    assert "nothing_here does not exist" in done.stderr
    assert "Traceback" not in done.stderr
