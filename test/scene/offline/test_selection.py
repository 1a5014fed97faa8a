import json

import numpy as np
import pytest

from spatial_mllm_ros.benchmarks.selection import plain_selection
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scene.offline.selection import select_offline

SOUND = (
    "room_orbit_T24_K8",
    "room_static_sweep_T32_K8",
    "K_ge_T",
    "K1",
    "empty_frames",
    "all_conf_equal",
    "conf_below_0.1_partly",
)


def load(golden_dir, name):
    cases = json.loads((golden_dir / "sampling" / "expected.json").read_text())["cases"]
    with np.load(golden_dir / "sampling" / f"case_{name}.npz") as arrays:
        points, confidence = arrays["world_points"], arrays["world_points_conf"]
    return next(c for c in cases if c["case"] == name), points, confidence


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_case_equals_the_official_result_to_the_last_figure(golden_dir, name):
    case, points, confidence = load(golden_dir, name)
    ours = select_offline(points, confidence, case["K"])
    assert list(ours.indices) == case["selected_sorted"]
    assert list(ours.greedy_order) == case["greedy_order"]
    assert list(ours.gains) == case["gains"]
    assert list(ours.voxels_per_frame) == case["per_frame_voxels"]
    assert (ours.covered_voxels, ours.total_voxels) == (case["covered"], case["total_voxels"])
    assert ours.valid_points == case["valid_points"]
    assert ours.confidence_threshold == case["conf_threshold"]
    assert ours.voxel_size == case["voxel_size"]
    assert (list(ours.bbox_min), list(ours.bbox_max)) == (case["bbox_min"], case["bbox_max"])
    assert ours.fill_order == ()


def test_one_far_point_changes_nothing(golden_dir):
    _, points, confidence = load(golden_dir, "one_far_outlier")
    far = np.argwhere(np.abs(points).max(axis=-1) > 100)
    assert len(far) == 1
    without = confidence.copy()
    without[tuple(far[0])] = 0
    ours, expected = select_offline(points, confidence, 3), select_offline(points, without, 3)
    assert ours.indices == expected.indices
    assert ours.voxel_size == expected.voxel_size < 0.2
    assert min(ours.gains) > 50


def test_one_nan_point_changes_nothing(golden_dir):
    _, points, confidence = load(golden_dir, "one_nan_point")
    bad = np.argwhere(~np.isfinite(points).all(axis=-1))
    mended = points.copy()
    mended[tuple(bad[0])] = points[tuple(bad[0] + [0, 0, 1])]  # a point that another pixel has already
    ours, expected = select_offline(points, confidence, 3), select_offline(mended, confidence, 3)
    assert ours.indices == expected.indices
    assert ours.voxel_size == expected.voxel_size
    assert ours.valid_points == expected.valid_points - 1


def test_a_flat_scene_takes_its_grid_from_the_sides_that_are_not_flat(golden_dir):
    _, points, confidence = load(golden_dir, "planar_zero_extent")
    ours = select_offline(points, confidence, 3)
    used = points[confidence >= np.median(confidence)]
    assert ours.voxel_size == pytest.approx(np.sort(np.ptp(used, axis=0))[1] / 20)
    assert len(ours.greedy_order) == 3
    assert min(ours.gains) > 20


def test_a_clip_of_low_confidence_is_still_selected_from(golden_dir):
    _, points, confidence = load(golden_dir, "all_conf_below_0.1")
    ours = select_offline(points, confidence, 4)
    assert ours.indices == (0, 1, 2, 3)
    assert ours.valid_points == confidence.size


def test_identical_frames_are_filled_up_evenly_over_time(golden_dir):
    case, points, confidence = load(golden_dir, "identical_frames")
    ours = select_offline(points, confidence, 4)
    assert list(ours.greedy_order) == case["greedy_order"]
    assert ours.fill_order == (4, 2, 1)
    assert ours.indices == (0, 1, 2, 4)


def clip(frames=7, height=6, width=9, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1, (frames, height, width, 3)).astype(np.float32) * np.array([3, 1, 2], np.float32)
    return points, rng.uniform(1, 2, (frames, height, width)).astype(np.float32)


def test_filling_prefers_what_adds_most_on_a_finer_grid():
    corners = np.array([[0, 0, 0], [20, 20, 20]], np.float32)  # the voxels are 1 x 1 x 1
    cells = np.random.default_rng(0).integers(0, 20, (40, 3)).astype(np.float32)
    frames = [np.concatenate([corners, cells + offset]) for offset in (0.1, 0.1, 0.1, 0.6, 0.1)]
    points = np.stack(frames).astype(np.float32)[:, None]
    ours = select_offline(points, np.ones(points.shape[:3], np.float32), 3)
    assert (ours.voxel_size, ours.greedy_order, ours.fill_order) == (1.0, (0,), (3, 1))


@pytest.mark.parametrize("breakage", [np.nan, np.inf, -np.inf])
def test_frames_without_a_usable_point_come_last(breakage):
    points, confidence = clip()
    points[[1, 4]] = breakage
    ours = select_offline(points, confidence, 5)
    assert set(ours.indices) == {0, 2, 3, 5, 6}
    assert len(select_offline(points, confidence, 7).indices) == 7


def test_confidence_that_is_not_finite_leaves_a_point_out():
    points, confidence = clip()
    broken = confidence.copy()
    broken[3, 2, 4], broken[5, 1, 1] = np.nan, np.inf
    points[3, 2, 4] = points[5, 1, 1] = 7.0
    assert select_offline(points, broken, 3).bbox_max[1] < 7.0


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_clip_without_any_usable_point_is_spread_over_time(value):
    points, confidence = clip(frames=5)
    ours = select_offline(points, np.full_like(confidence, value), 3)
    assert ours.indices == (0, 2, 4)
    assert (ours.total_voxels, ours.bbox_min) == (0, None)


def test_one_single_point_is_one_voxel():
    points, confidence = np.full((3, 2, 2, 3), 0.7, np.float32), np.ones((3, 2, 2), np.float32)
    ours = select_offline(points, confidence, 2)
    assert (ours.indices, ours.total_voxels) == ((0, 2), 1)


def test_a_grid_too_large_for_a_bitmap_gives_the_plain_result():
    points, confidence = clip(frames=9, height=20, width=30)
    points[..., 1] *= 0.004  # thin but not flat: the voxels are small and the grid is huge
    ours = select_offline(points, confidence, 6)
    assert list(ours.greedy_order) == plain_selection(points, confidence, 6)


def test_random_clips_equal_the_plain_method():
    for seed in range(5):
        points, confidence = clip(frames=12, height=15, width=20, seed=seed)
        assert list(select_offline(points, confidence, 6).greedy_order) == plain_selection(points, confidence, 6)


@pytest.mark.parametrize(
    ("points", "confidence", "k", "words"),
    [
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), 1, "[T, H, W, 3]"),
        (np.zeros((2, 3, 4, 3)), np.zeros((2, 4, 3)), 1, "[T, H, W]"),
        (np.zeros((0, 3, 4, 3)), np.zeros((0, 3, 4)), 1, "empty"),
        (np.zeros((2, 3, 4, 3)), np.zeros((2, 3, 4)), 0, "k is 0"),
    ],
)
def test_input_that_does_not_fit_is_refused(points, confidence, k, words):
    with pytest.raises(ConfigurationError) as caught:
        select_offline(points, confidence, k)
    assert words in str(caught.value)
