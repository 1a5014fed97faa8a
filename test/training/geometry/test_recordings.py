import json

import cv2
import numpy as np
import pytest
import torch

from spatial_mllm_ros.errors import TrainingError
from spatial_mllm_ros.training.geometry.batch import targets_of
from spatial_mllm_ros.training.geometry.config import GeometryDataConfig
from spatial_mllm_ros.training.geometry.recordings import RecordedBatches
from spatial_mllm_ros.training.run_folder import BadSamples

FRAMES, BROKEN = 20, 3


@pytest.fixture
def recording(tmp_path, rotation):
    """Frames whose red channel and depth tell their number; number 3 has no depth file."""
    folder = tmp_path / "recording"
    folder.mkdir()
    np.savetxt(folder / "camera-intrinsics.txt", [[60.0, 0, 33], [0, 62, 22], [0, 0, 1]])
    for number in range(FRAMES):
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., 2] = 10 * number  # red, in OpenCV's order
        depth = np.full((24, 32), 1000 + 50 * number, np.uint16)
        depth[:, 0] = 0
        pose = np.eye(4)
        pose[:3, :3] = rotation([0.1, 1, 0.3], 0.05 * number)
        pose[:3, 3] = [0.1 * number, 0, 0]
        cv2.imwrite(str(folder / f"frame-{number:06d}.color.png"), image)
        if number != BROKEN:
            cv2.imwrite(str(folder / f"frame-{number:06d}.depth.png"), depth)
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose)
    return folder


def batches(recording, tmp_path, **changes):
    data = GeometryDataConfig(recordings=(recording,), **{"frames": 3, "width_px": 56, "longest_step": 4, **changes})
    return RecordedBatches(data, batch_size=2, seed=1, bad=BadSamples(tmp_path / "bad.jsonl"))


def numbers(batch):
    """Which frames a batch holds, told by their red."""
    return (batch.images[:, :, 0].mean((-1, -2)) * 255 / 10).round().int()


def test_images_depth_and_cameras_of_a_frame_stay_together(recording, tmp_path):
    batch = batches(recording, tmp_path).batch(0)
    assert batch.images.shape == (2, 3, 3, 42, 56)
    for sample in range(2):
        for frame, number in enumerate(numbers(batch)[sample].tolist()):
            known = batch.mask[sample, frame]
            assert not known[:, 0].any()
            assert known[:, 4:].all()
            assert torch.allclose(batch.depth_m[sample, frame][known], torch.tensor(1 + 0.05 * number))
            pose = batch.cam_from_world[sample, frame].double()
            centre = -pose[:, :3].T @ pose[:, 3]
            assert centre.tolist() == pytest.approx([0.1 * number, 0, 0], abs=1e-5)
    assert batch.intrinsics_px[0, 0, 0].tolist() == pytest.approx([60 * 56 / 64, 0, 33.5 * 56 / 64 - 0.5])
    assert targets_of(batch, unit_m=1.0).mask.any()


def test_a_batch_is_the_same_whenever_it_is_asked_for_and_the_end_of_a_recording_is_held_out(recording, tmp_path):
    one, other = batches(recording, tmp_path), batches(recording, tmp_path)
    other.batch(3)
    assert torch.equal(numbers(one.batch(7)), numbers(other.batch(7)))
    trained = {number for index in range(12) for number in numbers(one.batch(index)).flatten().tolist()}
    held = {number for batch in one.held_out(6) for number in numbers(batch).flatten().tolist()}
    assert max(trained) < 16 <= min(held)
    assert len(trained) > 8


def test_a_broken_frame_is_reported_once_and_another_sample_taken(recording, tmp_path):
    made = batches(recording, tmp_path)
    assert all(BROKEN not in numbers(made.batch(index)) for index in range(12))
    reported = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [row["line"] for row in reported] == [BROKEN + 1]
    assert "depth" in reported[0]["message"]
    assert made.rejected == 1


def test_the_hash_follows_poses_and_files(recording, tmp_path):
    before = batches(recording, tmp_path).sha256
    assert before == batches(recording, tmp_path).sha256
    pose = recording / "frame-000007.pose.txt"
    pose.write_text(pose.read_text().replace("0.000", "0.001", 1))
    assert before != batches(recording, tmp_path).sha256


def test_no_recording_at_all_is_said(tmp_path):
    with pytest.raises(TrainingError, match=r"--data\.recordings"):
        RecordedBatches(GeometryDataConfig(), batch_size=1, seed=0, bad=BadSamples(tmp_path / "bad.jsonl"))


def test_a_recording_too_short_for_a_sample_is_named(recording, tmp_path):
    with pytest.raises(TrainingError, match="16 frames for training, fewer than the 17"):
        batches(recording, tmp_path, frames=17)
