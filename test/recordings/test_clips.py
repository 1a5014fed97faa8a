import cv2
import numpy as np
import pytest

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.recordings.clips import read_clip, read_image, readable_frames

COUNT, HEIGHT, WIDTH = 12, 48, 80


def level(number):
    return 20 + 15 * number


def picture(number):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 2] = level(number)  # red, in OpenCV's order
    return image


def reds(frames):
    assert all(frame.shape == (HEIGHT, WIDTH, 3) and frame.dtype == np.uint8 for frame in frames)
    return [float(frame[..., 0].mean()) for frame in frames]


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (WIDTH, HEIGHT))
    for number in range(COUNT):
        writer.write(picture(number))
    writer.release()
    return path


def picked(total):
    assert total == COUNT
    return [0, 3, 4, 11]


def test_the_frames_of_a_video_are_those_at_the_positions_asked_for(video):
    assert reds(read_clip(video, picked)) == pytest.approx([level(n) for n in (0, 3, 4, 11)], abs=5)


def test_the_images_of_a_folder_are_taken_in_natural_order_and_no_other_is_read(tmp_path):
    for number in range(COUNT):
        cv2.imwrite(str(tmp_path / f"frame_{number}.png"), picture(number))
    (tmp_path / "frame_5.png").write_bytes(b"broken")
    assert reds(read_clip(tmp_path, picked)) == [level(n) for n in (0, 3, 4, 11)]
    with pytest.raises(SourceError, match=r"frame_5\.png cannot be used"):
        read_clip(tmp_path, lambda _: [5])


def test_an_rgbd_folder_gives_its_colour_images_in_order_of_their_numbers(tmp_path):
    for number in range(COUNT):
        cv2.imwrite(str(tmp_path / f"frame-{number:06d}.color.png"), picture(number))
        cv2.imwrite(str(tmp_path / f"frame-{number:06d}.depth.png"), np.full((24, 40), 1000, np.uint16))
    assert reds(read_clip(tmp_path, picked)) == [level(n) for n in (0, 3, 4, 11)]


def test_a_video_cut_short_says_how_far_it_can_be_read(video, tmp_path):
    with pytest.raises(SourceError, match=r"decoding ends after 12"):
        read_clip(video, lambda total: [0, total + 3])


def test_evaluation_goes_on_with_the_frames_of_a_video_that_can_be_decoded(video, tmp_path):
    found = readable_frames(video, lambda total: [2, 7, total + 3])
    assert list(found) == [2, 7]
    assert reds(found.values()) == pytest.approx([level(2), level(7)], abs=5)
    with pytest.raises(SourceError, match=r"Not one of the 1 frames wanted of .*clip\.mp4 can be decoded"):
        readable_frames(video, lambda total: [total + 3])


def test_what_is_not_there_or_no_image_is_named(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        read_clip(tmp_path / "nothing.mp4", picked)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(SourceError, match=r"text\.png cannot be used"):
        read_image(tmp_path / "text.png")
