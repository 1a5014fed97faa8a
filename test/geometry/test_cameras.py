import math

import pytest

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.geometry.cameras import Intrinsics, calibrated_camera

K = (600.0, 0.0, 320.5, 0.0, 590.0, 239.5, 0.0, 0.0, 1.0)


def test_a_calibration_is_read_row_by_row():
    assert calibrated_camera(K, width_px=640, height_px=480) == Intrinsics(600.0, 590.0, 320.5, 239.5, 640, 480)


@pytest.mark.parametrize(
    ("k", "width_px"), [((0.0,) * 9, 640), ((math.nan, *K[1:]), 640), ((*K[:4], -590.0, *K[5:]), 640), (K, 0)]
)
def test_a_calibration_without_focal_length_or_size_is_refused(k, width_px):
    with pytest.raises(FrameRejectedError, match="calibrate the camera") as refused:
        calibrated_camera(k, width_px=width_px, height_px=480)
    assert refused.value.cause == "camera_info"


def test_the_camera_for_a_resized_image_keeps_the_centres_of_the_pixels():
    camera = Intrinsics(600.0, 590.0, 319.5, 239.5, 640, 480)
    assert camera.for_image(640, 480) is camera
    assert camera.for_image(320, 240) == Intrinsics(300.0, 295.0, 159.5, 119.5, 320, 240)


def test_an_image_of_another_field_of_view_is_refused():
    with pytest.raises(FrameRejectedError, match="640x480 but the image is 640x360") as refused:
        Intrinsics(600.0, 590.0, 319.5, 239.5, 640, 480).for_image(640, 360)
    assert refused.value.cause == "intrinsics"


def test_a_calibration_that_is_written_is_read_as_the_same_camera():
    camera = Intrinsics(600.0, 590.0, 320.5, 239.5, 640, 480)
    fields = camera.calibration()
    assert calibrated_camera(fields["k"], width_px=fields["width"], height_px=fields["height"]) == camera
    assert fields["p"].tolist() == [600.0, 0.0, 320.5, 0.0, 0.0, 590.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert not fields["d"].any()
