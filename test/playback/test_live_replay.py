import json
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.msg", reason="the interfaces are not built; run ./dev install")

from spatial_mllm_ros.recordings.bag_writer import write_bag
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips


def test_the_live_node_is_asked_the_same_questions_and_the_diff_says_what_differs(tmp_path, random_checkpoint):
    write_bag(tmp_path / "walk", make_clips([7], ClipConfig(36, 168, 126, rate_hz=15.0))[0].frames())
    (tmp_path / "q.yaml").write_text(
        "- question: How far is the chair from the door?\n  at: 0.8\n  truth: 2\n- question: What is red?\n"
    )
    command = [sys.executable, "-m", "spatial_mllm_ros.cli", "replay", str(tmp_path / "walk"), "--ros"]
    command += ["--questions", str(tmp_path / "q.yaml"), "--out", str(tmp_path / "out")]
    command += ["--checkpoint", str(random_checkpoint), "--frames", "4", "--max-new-tokens", "4", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    diff = json.loads((tmp_path / "out" / "ros_diff.json").read_text())
    assert diff["of"] == 2
    early, late = diff["questions"]
    assert (early["at_s"], late["at_s"]) == (0.8, None)
    assert early["live"]["status"] in ("OK", "UNPARSED")
    # After the last frame both have placed the same frames, so everything must be the same.
    assert late["same_evidence"], late
    assert late["same_answer"], late
    assert len(late["live"]["evidence"]) == 4
