import struct

import cv2
import numpy as np
import pytest

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.recordings.video import VideoFile


def write_video(path, count=8, rate_hz=12.5, width=96, height=64):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate_hz, (width, height))
    if not writer.isOpened():
        pytest.skip("this build of OpenCV cannot write mp4v")
    for index in range(count):
        bgr = np.full((height, width, 3), (40 + 20 * index) % 256, np.uint8)
        bgr[: height // 2, : width // 2] = (0, 0, 255)  # red at the top left
        writer.write(bgr)
    writer.release()


def set_rotation_90(path):
    """Writes the track matrix of a film to be turned 90 degrees clockwise (ISO/IEC 14496-12, tkhd)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix_at = at + (40 if data[at] == 0 else 52)
    struct.pack_into(">9i", data, matrix_at, 0, 0x10000, 0, -0x10000, 0, 0, 64 << 16, 0, 0x40000000)
    path.write_bytes(bytes(data))


def test_frames_are_stamped_by_their_presentation_time(tmp_path):
    write_video(tmp_path / "film.mp4")
    source = VideoFile(tmp_path / "film.mp4")
    frames = list(source)
    assert (source.name, source.frame_count, len(frames)) == ("film.mp4", 8, 8)
    assert [frame.stamp_ns for frame in frames] == [1_000_000_000 + index * 80_000_000 for index in range(8)]
    red, grey = frames[0].rgb[10, 10], frames[0].rgb[60, 90]
    assert red[0] > 200 > 60 > red[2]
    assert np.abs(grey.astype(int) - 40).max() < 12
    assert not source.rejected


def test_a_film_with_rotation_is_turned_upright(tmp_path):
    write_video(tmp_path / "film.mp4")
    set_rotation_90(tmp_path / "film.mp4")
    rgb = next(iter(VideoFile(tmp_path / "film.mp4"))).rgb
    assert rgb.shape == (96, 64, 3)
    assert rgb[10, 54, 0] > 200 > 60 > rgb[10, 54, 2]  # the red corner went from top left to top right


def test_a_second_pass_gives_the_same_frames(tmp_path):
    write_video(tmp_path / "film.mp4", count=3)
    source = VideoFile(tmp_path / "film.mp4")
    for one, other in zip(source, source, strict=True):
        assert one.stamp_ns == other.stamp_ns
        assert np.array_equal(one.rgb, other.rgb)


def test_a_film_cut_short_counts_what_is_missing(tmp_path):
    write_video(tmp_path / "film.avi", count=30)
    data = (tmp_path / "film.avi").read_bytes()
    (tmp_path / "film.avi").write_bytes(data[: len(data) * 2 // 3])
    source = VideoFile(tmp_path / "film.avi")
    given = len(list(source))
    assert 0 < given < 30
    assert source.frame_count is None or given + source.rejected["undecodable"] == source.frame_count


def test_what_is_no_film_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"not a film")
    with pytest.raises(SourceError, match="ffmpeg -i"):
        VideoFile(tmp_path / "film.mp4")
