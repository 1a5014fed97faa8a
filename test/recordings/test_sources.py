import cv2
import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.recordings.bag_topics import BagTopics
from spatial_mllm_ros.recordings.bag_writer import write_bag
from spatial_mllm_ros.recordings.rgbd_folder import write_rgbd_folder
from spatial_mllm_ros.recordings.sources import open_source

from .test_video import write_video


def test_every_kind_is_told_by_what_is_there(tmp_path, frames):
    write_rgbd_folder(tmp_path / "rgbd", frames)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.PNG"), np.zeros((4, 6, 3), np.uint8))
    write_video(tmp_path / "film.mp4")
    write_bag(tmp_path / "bag", frames)
    for name, kind in (("rgbd", "rgbd_folder"), ("images", "image_folder"), ("film.mp4", "video"), ("bag", "bag")):
        with open_source(str(tmp_path / name)) as source:
            assert (source.kind, source.name) == (kind, name)
            assert next(iter(source)).stamp_ns >= 1_000_000_000
    with open_source(tmp_path / "bag" / "bag.mcap") as source:
        assert source.kind == "bag"


def test_what_is_no_recording_is_an_error_with_the_remedy(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "old.bag").write_text("")
    with pytest.raises(SourceError, match="does not exist"):
        open_source(tmp_path / "nothing")
    with pytest.raises(SourceError, match="holds no recording"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match=r"neither a video"):
        open_source(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match="rosbags-convert"):
        open_source(tmp_path / "old.bag")


def test_several_storage_files_without_metadata_need_a_reindex(tmp_path):
    for name in ("a.db3", "b.db3"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match="ros2 bag reindex"):
        open_source(tmp_path)


def test_options_of_another_kind_are_refused(tmp_path, frames):
    write_bag(tmp_path / "bag", frames)
    write_rgbd_folder(tmp_path / "rgbd", frames)
    with pytest.raises(ConfigurationError, match="rate_hz"):
        open_source(tmp_path / "bag", rate_hz=2.0)
    with pytest.raises(ConfigurationError, match="topics"):
        open_source(tmp_path / "rgbd", topics=BagTopics())
