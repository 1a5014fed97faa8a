import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.oriented_boxes import OrientedBox, pairwise_distances_m


def random_box(rng):
    return OrientedBox(rng.uniform(-1.5, 1.5, 3), rng.uniform(0.2, 1.6, 3), rng.uniform(-4, 4))


def filled(box, step):
    axes = [np.linspace(-0.5, 0.5, max(2, round(length / step) + 1)) * length for length in box.size_m]
    own = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    cos, sin = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
    x, y = cos * own[:, 0] - sin * own[:, 1], sin * own[:, 0] + cos * own[:, 1]
    return np.stack([x, y, own[:, 2]], -1) + box.centre_m


def test_distances_are_those_of_densely_sampled_boxes():
    rng = np.random.default_rng(5)
    apart = 0
    for _ in range(25):
        one, two = random_box(rng), random_box(rng)
        exact = pairwise_distances_m([one, two])
        a, b = filled(one, 0.1), filled(two, 0.1)
        sampled = min(np.sqrt(((a[i : i + 200, None] - b[None]) ** 2).sum(-1).min()) for i in range(0, len(a), 200))
        assert exact[0, 1] == exact[1, 0]
        assert exact[0, 1] <= sampled + 1e-9
        assert sampled <= exact[0, 1] + 0.18  # two half diagonals of the sampling grid
        apart += exact[0, 1] > 0
    assert 5 < apart < 25


def test_crossing_boxes_touch_though_no_corner_of_either_is_in_the_other():
    long = OrientedBox(np.zeros(3), np.array([4.0, 0.2, 1.0]), 0.3)
    across = OrientedBox(np.zeros(3), np.array([0.2, 4.0, 1.0]), 0.35)
    assert pairwise_distances_m([long, across])[0, 1] == 0.0
    raised = OrientedBox(np.array([0, 0, 1.7]), across.size_m, 0.35)
    assert pairwise_distances_m([long, raised])[0, 1] == pytest.approx(0.7)


def test_a_box_inside_another_has_no_distance():
    outer = OrientedBox(np.zeros(3), np.array([3.0, 2.0, 2.0]), 1.0)
    inner = OrientedBox(np.array([0.1, 0.1, 0.0]), np.full(3, 0.2), -0.4)
    assert pairwise_distances_m([outer, inner])[0, 1] == 0.0


def test_corners_and_contains_agree():
    box = OrientedBox(np.array([1.0, -2.0, 0.5]), np.array([2.0, 0.6, 1.0]), 0.9)
    centre = box.centre_m
    assert box.contains(centre + 0.999 * (box.corners() - centre)).all()
    assert not box.contains(centre + 1.001 * (box.corners() - centre)).any()
    footprint = box.footprint()
    turn = np.cross(np.append(footprint[1] - footprint[0], 0), np.append(footprint[2] - footprint[1], 0))[2]
    assert turn == pytest.approx(1.2)  # counter-clockwise, of the right area


@pytest.mark.parametrize(
    ("size", "yaw", "match"), [((1, 0, 1), 0.0, "size_m"), ((1, 1), 0.0, "size_m"), ((1, 1, 1), np.nan, "yaw_rad")]
)
def test_impossible_boxes_are_refused(size, yaw, match):
    with pytest.raises(ConfigurationError, match=match):
        OrientedBox(np.zeros(3), np.array(size, float), yaw)
