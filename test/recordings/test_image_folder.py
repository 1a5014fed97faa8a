import cv2
import numpy as np
import pytest
from PIL import Image

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.image_folder import ImageFolder


def write(path, value, shape=(20, 30)):
    cv2.imwrite(str(path), np.full((*shape, 3), value, np.uint8))


def test_images_come_in_natural_order_one_second_apart(tmp_path):
    for number in (10, 9, 100, 1):
        write(tmp_path / f"frame_{number}.png", number)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    frames = list(ImageFolder(tmp_path))
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [1, 9, 10, 100]
    assert [frame.stamp_ns for frame in frames] == [1_000_000_000, 2_000_000_000, 3_000_000_000, 4_000_000_000]


def test_a_cut_off_photograph_keeps_its_place_in_time(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:-300])
    source = ImageFolder(tmp_path, rate_hz=2.0)
    assert [frame.stamp_ns for frame in source] == [1_000_000_000, 2_000_000_000]
    assert source.rejected == {"payload": 1}


def test_photographs_are_turned_upright(tmp_path):
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    image.paste((255, 0, 0), (0, 0, 15, 20))  # left half red as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise to be seen upright
    image.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    rgb = next(iter(ImageFolder(tmp_path))).rgb
    assert rgb.shape == (30, 20, 3)
    assert rgb[5, 10, 0] > 200  # left became top
    assert rgb[25, 10, 0] < 50


def test_given_intrinsics_are_scaled_to_each_image(tmp_path):
    write(tmp_path / "0.png", 0)
    frame = next(iter(ImageFolder(tmp_path, intrinsics=Intrinsics(60.0, 60.0, 29.5, 19.5, 60, 40))))
    assert frame.intrinsics == Intrinsics(30.0, 30.0, 14.5, 9.5, 30, 20)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="holds no"):
        ImageFolder(tmp_path)


def test_the_real_walk_has_thirteen_frames(data_dir):
    source = ImageFolder(data_dir / "living_room")
    assert source.frame_count == 13
    assert next(iter(source)).rgb.shape == (1080, 1920, 3)
