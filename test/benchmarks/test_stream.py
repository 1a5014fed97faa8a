import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from spatial_mllm_ros.benchmarks.plots import draw_stream
from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.benchmarks.stream import STAGES, coverage_curves, measure, run_stream
from spatial_mllm_ros.benchmarks.stream_frames import looped, rooms_walk, sent_frames
from spatial_mllm_ros.cli import main
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.replay.coverage_figures import union_keys
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.stage_clock import Stage

CONFIG = SceneConfig(ring_frames=4, keyframes=3, selected_frames=3, rate_hz=0.0)


@pytest.fixture(scope="module")
def walk():
    return list(rooms_walk(2, 6, width_px=56, height_px=42))


@pytest.fixture(scope="module")
def sent(walk):
    return sent_frames(walk)


def test_rooms_of_a_walk_are_far_apart_and_frames_keep_their_pose_in_the_room(walk):
    first, second = (
        np.stack([frame.scene_from_cam[:3, 3] for frame in walk[part]]) for part in (slice(6), slice(6, 12))
    )
    assert np.abs(first).max() < 20
    assert np.linalg.norm(second - first.mean(axis=0), axis=1).min() > 20
    assert all(np.allclose(frame.scene_from_cam[:3, :3] @ frame.scene_from_cam[:3, :3].T, np.eye(3)) for frame in walk)


def test_a_sent_frame_arrives_in_the_ring_as_it_was_but_for_jpeg_and_millimetres(walk, sent):
    scene = Scene(CONFIG, SensorDepthEncoder(1))
    assert sent[7].take_into(scene, 5)
    assert not sent[7].take_into(scene, 5)
    scene.process()
    (frame,) = scene.snapshot.evidence.frames
    assert np.abs(frame.rgb.astype(int) - walk[7].rgb).mean() < 6
    read = np.isfinite(walk[7].depth_m)
    assert np.array_equal(np.isfinite(frame.depth_m), read)
    assert np.abs(frame.depth_m - walk[7].depth_m)[read].max() < 1e-3
    assert np.array_equal(frame.scene_from_cam, walk[7].scene_from_cam)


def test_a_frame_without_depth_is_refused():
    with pytest.raises(SourceError, match="Frame 9 ns has no depth, intrinsics or pose"):
        sent_frames([Frame(9, np.zeros((4, 6, 3), np.uint8))])


def test_a_loop_begins_again_with_later_stamps(sent):
    stream = list(looped(sent, 30))
    assert stream[25][1] is sent[1]
    assert (np.diff([stamp for stamp, _ in stream]) > 0).all()


def test_every_stage_of_every_frame_takes_time_and_bytes_are_bounded(sent):
    run = run_stream(sent, 30, SensorDepthEncoder(1), CONFIG)
    assert run.stage_ms.shape == (30, len(STAGES))
    assert (run.stage_ms > 0).all()
    frame_bytes = 42 * 56 * (3 + 4)
    assert (run.held_bytes[10:, 0] == 4 * frame_bytes).all()
    assert run.held_bytes[:, 1].max() <= 3 * frame_bytes
    assert run.keyframes.max() <= 3
    assert len({id(frame.fine_keys) for frame in run.seen}) == len(sent)


def test_the_coverage_curves_are_ordered_and_the_unlimited_one_remembers_what_was_let_go(sent):
    run = run_stream(sent, 30, SensorDepthEncoder(1), CONFIG)
    curves = {name: np.array(points) for name, points in coverage_curves(run, 3).items()}
    assert (curves["ever"][:, 0] == np.arange(1, 31)).all()
    assert (np.diff(curves["ever"][:, 1]) >= 0).all()
    assert (curves["ever"][11:, 1] == curves["ever"][-1, 1]).all()  # the second round shows nothing new
    assert (curves["held"][:, 1] <= curves["ever"][:, 1]).all()
    assert (curves["selected"][:, 1] <= curves["held"][:, 1]).all()
    assert (curves["unlimited"][11:, 1] == curves["unlimited"][11, 1]).all()
    assert curves["unlimited"][-1, 1] > curves["ever"][-1, 1] / 4
    assert curves["ever"][-1, 1] == len(union_keys(run.seen, None, run.level))


def test_a_scene_counts_its_stages_over_epochs(sent):
    scene = Scene(CONFIG, SensorDepthEncoder(1))
    assert set(scene.spent_ns().values()) == {0}
    sent[0].take_into(scene, 1)
    scene.process()
    before = scene.spent_ns()
    assert min(before.values()) > 0
    scene.queue.start_epoch("a test")
    assert scene.spent_ns() == before
    sent[1].take_into(scene, 2)
    scene.process()
    assert all(scene.spent_ns()[stage] > before[stage] for stage in Stage)


def test_rows_hold_their_curves_and_are_drawn(sent, tmp_path):
    rows = measure("toy", sent, 40, what="walk", config=CONFIG)
    named = {row.name: row for row in rows}
    json.dumps([row.to_json() for row in rows], allow_nan=False)
    for stage in (*STAGES, "frame"):
        shares = [named[f"stream.toy.{stage}_p{n}_ms"].value for n in (50, 95, 99)]
        assert 0 < shares[0] <= shares[1] <= shares[2]
    assert named["stream.toy.coverage_over_unlimited"].aim == ">= 0.98"
    assert named["stream.toy.coverage_selected"].series[-1] == [40, named["stream.toy.coverage_selected"].value]
    assert 0 < named["stream.toy.held_over_ever"].value <= 1
    draw_stream(rows, tmp_path / "stream.svg")
    text = "".join(ET.parse(tmp_path / "stream.svg").getroot().itertext())
    for words in ("thousand voxels", "ms per frame", "MB held", "frames seen", "select (p50)", "walk"):
        assert words in text


def test_rows_of_other_parts_are_not_drawn(tmp_path):
    with pytest.raises(ConfigurationError, match="nothing of the part stream"):
        draw_stream([Row("selection.offline_s", 1.0, "s")], tmp_path / "stream.svg")


def test_the_command_refuses_an_unknown_part_and_a_plot_of_two(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["benchmark", "streem"])
    assert "unknown part 'streem'" in capsys.readouterr().err
    assert main(["benchmark", "rooms", "--plot", str(tmp_path / "a.svg")]) == 1
    assert "--plot draws one part" in capsys.readouterr().err
