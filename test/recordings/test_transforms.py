import numpy as np
import pytest

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.geometry.poses import matrix_from_quaternion, quaternion_from_matrix
from spatial_mllm_ros.recordings.transforms import PoseTrack, TransformTree, slerp

from .conftest import rotation

MS = 1_000_000


def quaternion(axis, angle_rad):
    return quaternion_from_matrix(rotation(axis, angle_rad))


@pytest.mark.parametrize("angle", [1e-4, 0.3, 2.9])
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_slerp_turns_at_constant_speed_along_the_shortest_arc(angle, flip):
    axis = (0.2, -0.7, 0.4)
    start = quaternion(axis, 0.5)
    for share in (0.0, 0.25, 1.0):
        between = slerp(start, flip * quaternion(axis, 0.5 + angle), share)
        assert np.allclose(matrix_from_quaternion(between), rotation(axis, 0.5 + share * angle), atol=1e-9)


def test_samples_out_of_order_are_put_in_order():
    track = PoseTrack()
    for stamp in (300, 100, 200):
        track.add(stamp * MS, np.array([float(stamp), 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    assert track.at(150 * MS, 0)[0, 3] == pytest.approx(150.0)
    assert track.at(200 * MS, 0)[0, 3] == 200.0


def test_long_gaps_are_not_bridged_beyond_the_tolerance():
    track = PoseTrack()
    for stamp in (100, 1100):
        track.add(stamp * MS, np.array([float(stamp), 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    assert track.at(600 * MS, 20 * MS) is None
    assert track.at(115 * MS, 20 * MS)[0, 3] == 100.0
    assert track.at(1121 * MS, 20 * MS) is None
    assert PoseTrack().at(1, 1) is None


def test_a_missing_link_names_both_frames():
    tree = TransformTree()
    tree.add("/base_link", "camera", 0, np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), fixed=True)
    with pytest.raises(FrameRejectedError, match=r"'camera' to 'map': 'base_link' has no parent"):
        tree.pose("map", "camera", 1, 0)
    assert tree.ancestors("camera") == ["base_link"]


def test_a_loop_in_tf_ends():
    tree = TransformTree()
    for parent, child in (("a", "b"), ("b", "a")):
        tree.add(parent, child, 0, np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), fixed=True)
    assert len(tree.ancestors("a")) <= 2
