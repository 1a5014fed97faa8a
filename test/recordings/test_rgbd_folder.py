import shutil

import cv2
import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.rgbd_folder import RgbdFolder, depth_to_millimetres, write_rgbd_folder


@pytest.fixture
def folder(tmp_path, frames):
    assert write_rgbd_folder(tmp_path / "walk", frames) == 6
    return tmp_path / "walk"


def test_a_written_recording_reads_back(folder, frames):
    source = RgbdFolder(folder)
    assert (source.name, source.frame_count) == ("walk", 6)
    for read, written in zip(source, frames, strict=True):
        assert read.stamp_ns == written.stamp_ns
        assert np.array_equal(read.depth_m, written.depth_m, equal_nan=True)
        assert np.allclose(read.scene_from_cam, written.scene_from_cam, atol=1e-12)
        assert read.intrinsics == written.intrinsics
        assert np.abs(read.rgb.astype(int) - written.rgb).mean() < 3  # JPEG
    assert not source.rejected


def test_stamps_come_from_frame_numbers_at_the_given_rate(folder):
    assert [f.stamp_ns for f in RgbdFolder(folder, rate_hz=3.0)] == [
        1_000_000_000 + i * 1_000_000_000 for i in range(6)
    ]
    with pytest.raises(ConfigurationError, match="rate_hz"):
        RgbdFolder(folder, rate_hz=0.0)


def test_every_kind_of_broken_frame_is_skipped_and_counted(folder):
    def name(number, kind):
        return folder / f"frame-{number:06d}.{kind}"

    (folder / "frame-000003.color.jpg").write_bytes(name(3, "color.jpg").read_bytes()[:-400])
    name(6, "depth.png").unlink()
    name(9, "pose.txt").unlink()
    name(12, "pose.txt").write_text("nan nan nan nan\n" * 4)
    name(15, "depth.png").write_bytes(name(15, "depth.png").read_bytes()[:-60])
    source = RgbdFolder(folder)
    assert [frame.stamp_ns for frame in source] == [1_000_000_000]
    assert source.rejected == {"payload": 1, "no_depth": 1, "no_pose": 1, "pose": 1, "depth": 1}


def test_a_pose_file_with_words_names_the_line(folder, caplog):
    path = folder / "frame-000003.pose.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "0 0 -1.#IND 1", lines[3]]))
    assert len(list(RgbdFolder(folder))) == 5
    assert "frame-000003.pose.txt: Line 3" in caplog.text


def test_zero_and_65535_millimetres_mean_no_reading(folder):
    millimetres = np.full((24, 32), 1500, np.uint16)
    millimetres[0, 0], millimetres[1, 2] = 0, 65535
    cv2.imwrite(str(folder / "frame-000000.depth.png"), millimetres)
    depth_m = next(iter(RgbdFolder(folder))).depth_m
    assert np.isnan(depth_m[0, 0])
    assert np.isnan(depth_m[1, 2])
    assert np.isnan(depth_m).sum() == 2
    assert depth_m[5, 5] == np.float32(1.5)


def test_an_eight_bit_depth_image_is_refused(folder):
    cv2.imwrite(str(folder / "frame-000000.depth.png"), np.full((24, 32), 15, np.uint8))
    source = RgbdFolder(folder)
    assert len(list(source)) == 5
    assert source.rejected == {"depth": 1}


def test_without_any_pose_file_frames_come_without_poses(folder):
    for path in folder.glob("*.pose.txt"):
        path.unlink()
    assert [frame.scene_from_cam for frame in RgbdFolder(folder)] == [None] * 6


def test_missing_or_malformed_intrinsics_are_an_error_with_the_remedy(folder):
    path = folder / "camera-intrinsics.txt"
    path.write_text("585 0 320\n0 585\n0 0 1\n")
    with pytest.raises(SourceError, match=r"camera-intrinsics.txt: Line 2 has 2 numbers"):
        RgbdFolder(folder)
    path.unlink()
    with pytest.raises(SourceError, match="as an option"):
        RgbdFolder(folder)
    camera = Intrinsics(80.0, 81.0, 40.0, 30.0, 128, 96)
    assert next(iter(RgbdFolder(folder, intrinsics=camera))).intrinsics == camera.resized(64, 48)


def test_frames_past_number_999999_stay_in_order(folder):
    for kind in ("color.jpg", "depth.png", "pose.txt"):
        shutil.copy(folder / f"frame-000015.{kind}", folder / f"frame-1000000.{kind}")
    stamps = [frame.stamp_ns for frame in RgbdFolder(folder)]
    assert stamps == sorted(stamps)
    assert len(stamps) == 7


def test_writing_over_a_recording_is_refused(folder, frames):
    with pytest.raises(SourceError, match="holds a recording already"):
        write_rgbd_folder(folder, frames)


def test_depth_that_does_not_fit_millimetres_becomes_no_reading():
    depth_m = np.array([[np.nan, np.inf, -1.0], [70.0, 0.0004, 65.534]], np.float32)
    assert depth_to_millimetres(depth_m).tolist() == [[0, 0, 0], [0, 0, 65534]]


def test_the_real_recording_is_read_whole(data_dir):
    source = RgbdFolder(data_dir / "redkitchen")
    assert source.frame_count == 300
    first, second = (frame for _, frame in zip(range(2), source, strict=False))
    assert second.stamp_ns - first.stamp_ns == round(2e9 / 30)
    assert first.rgb.shape == (480, 640, 3)
    assert first.depth_m.shape == (480, 640)
    assert 0.5 < np.nanmedian(first.depth_m) < 5.0
    assert first.intrinsics.fx_px == 585.0
