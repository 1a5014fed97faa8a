import numpy as np
import pytest

from spatial_mllm_ros.errors import FrameRejectedError, SourceError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.recording import (
    FIRST_STAMP_NS,
    Recording,
    check_depth_shape,
    check_pose,
    intrinsics_for,
    natural_key,
)


class Listed(Recording[int]):
    """Entries are stamps in ns; a negative one stands for a broken image."""

    kind = "listed"

    def __init__(self, stamps):
        super().__init__("listed", len(stamps))
        self._stamps = stamps

    def _entries(self):
        return self._stamps

    def _frame(self, stamp):
        if stamp < 0:
            raise FrameRejectedError("payload", "cut off")
        return Frame(stamp, np.zeros((2, 3, 3), np.uint8))


def test_broken_and_backward_frames_are_counted_by_cause_and_the_pass_goes_on(caplog):
    source = Listed([10, -1, 20, 20, 15, 30, -1])
    assert [frame.stamp_ns for frame in source] == [10, 20, 30]
    assert source.rejected == {"payload": 2, "stamp_order": 2}
    assert "2 x payload, 2 x stamp_order" in caplog.text


def test_every_pass_starts_its_count_anew():
    source = Listed([10, -1, 20])
    for _ in range(3):
        assert len(list(source)) == 2
        assert source.rejected == {"payload": 1}


def test_a_recording_without_one_usable_frame_is_an_error_that_says_why():
    with pytest.raises(SourceError, match="2 x payload"):
        list(Listed([-1, -1]))


def test_a_thousand_broken_frames_do_not_make_a_thousand_log_lines(caplog):
    assert len(list(Listed([5] + [-1] * 1000))) == 1
    assert len(caplog.records) <= 5


def test_numbers_in_names_sort_as_numbers():
    names = ["frame_10.jpg", "frame_9.jpg", "a2b10", "a2b9", "frame_009b.jpg", "10", "9"]
    assert sorted(names, key=natural_key) == [
        "9",
        "10",
        "a2b9",
        "a2b10",
        "frame_9.jpg",
        "frame_009b.jpg",
        "frame_10.jpg",
    ]


def test_intrinsics_follow_a_resize_but_not_another_field_of_view():
    camera = Intrinsics(500.0, 510.0, 330.0, 235.0, 640, 480)
    half = intrinsics_for(camera, np.zeros((240, 320, 3), np.uint8))
    assert (half.fx_px, half.fy_px, half.width_px) == (250.0, 255.0, 320)
    with pytest.raises(FrameRejectedError, match="640x480"):
        intrinsics_for(camera, np.zeros((360, 640, 3), np.uint8))
    assert intrinsics_for(None, np.zeros((360, 640, 3), np.uint8)) is None


def test_depth_of_another_field_of_view_is_refused_and_of_another_size_taken():
    rgb = np.zeros((480, 640, 3), np.uint8)
    check_depth_shape(np.zeros((240, 320), np.float32), rgb, "depth")
    with pytest.raises(FrameRejectedError, match="848x480"):
        check_depth_shape(np.zeros((480, 848), np.float32), rgb, "depth")


@pytest.mark.parametrize("flaw", ["nan", "scaled", "mirrored", "projective"])
def test_what_is_no_rigid_motion_is_no_pose(flaw):
    pose = np.eye(4)
    pose[:3, 3] = (1.0, -2.0, 3.0)
    assert check_pose(pose, "pose") is pose
    if flaw == "nan":
        pose[0, 3] = np.nan
    elif flaw == "scaled":
        pose[:3, :3] *= 1.1
    elif flaw == "mirrored":
        pose[0, 0] = -1.0
    else:
        pose[3, 0] = 0.5
    with pytest.raises(FrameRejectedError) as caught:
        check_pose(pose, "the pose file")
    assert caught.value.cause == "pose"
    assert "the pose file" in str(caught.value)


def test_recordings_without_a_clock_start_above_zero():
    assert FIRST_STAMP_NS > 0
