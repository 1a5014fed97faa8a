import numpy as np
import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.preparation import (
    CLIP_MEAN,
    CLIP_STD,
    INFERENCE_BUDGET,
    TRAINING_BUDGET,
    PixelBudget,
    evaluation_frame_indices,
    patch_rows,
    prepare_image,
    prepare_video,
    training_frame_indices,
)


def test_training_and_inference_sizes_differ_at_720p_and_agree_at_480p():
    assert TRAINING_BUDGET.size_px(480, 640) == INFERENCE_BUDGET.size_px(480, 640) == (476, 644)
    assert TRAINING_BUDGET.size_px(720, 1280) == (420, 756)
    assert INFERENCE_BUDGET.size_px(720, 1280) == (560, 1008)


def test_portrait_frames_stay_portrait():
    assert TRAINING_BUDGET.size_px(640, 480) == (644, 476)


@pytest.mark.parametrize(("height", "width"), [(1, 201), (402, 2), (0, 5)])
def test_slivers_and_empty_frames_are_refused(height, width):
    with pytest.raises(ConfigurationError, match=f"{width}x{height}"):
        TRAINING_BUDGET.size_px(height, width)


@pytest.mark.parametrize(("low", "high"), [(0, 10_000), (1, 100), (5000, 4000)])
def test_impossible_budgets_are_refused(low, high):
    with pytest.raises(ConfigurationError, match="PixelBudget"):
        PixelBudget(low, high, pil_resize=True)


def test_patch_rows_go_by_time_block_and_patch_and_hold_channel_frame_y_x():
    images = torch.zeros(4, 3, 56, 84)
    # Frame 3 (second pair, second of it), green; y = 28 + 14 + 5: block row 1, lower patch; x = 56 + 2: block column 2.
    images[3, 1, 47, 58] = 1.0
    rows = patch_rows(images)
    assert rows.shape == (2 * 4 * 6, 1176)
    dark = -torch.tensor(CLIP_MEAN) / torch.tensor(CLIP_STD)
    changed = (rows.view(-1, 3, 2, 14, 14) - dark.view(1, 3, 1, 1, 1)).abs() > 1e-6
    time, block_row, block_column, patch_row, patch_column = 1, 1, 2, 1, 0
    row = ((time * 2 + block_row) * 3 + block_column) * 4 + patch_row * 2 + patch_column
    assert changed.nonzero().tolist() == [[row, 1, 1, 5, 2]]


def test_both_encoders_see_the_same_frames(frames, small_budget):
    video = prepare_video(frames, small_budget)
    assert (video.height_px, video.width_px) == (56, 84)
    assert video.video_grid_thw.tolist() == [[2, 4, 6]]
    assert video.token_count == 12
    assert torch.equal(patch_rows(video.spatial_images), video.pixel_values_videos)
    assert video.spatial_images.min() >= 0
    assert video.spatial_images.max() <= 1


def test_an_odd_number_of_frames_repeats_the_last_one(frames, small_budget):
    odd, even = prepare_video(frames[:3], small_budget), prepare_video([*frames[:3], frames[2]], small_budget)
    assert odd.spatial_images.shape[0] == 4
    assert torch.equal(odd.pixel_values_videos, even.pixel_values_videos)


def test_an_image_is_shown_as_two_equal_frames(frames, small_budget):
    image = prepare_image(frames[0], small_budget)
    assert image.image_grid_thw.tolist() == [[1, 4, 6]]
    assert image.spatial_images.shape == (2, 3, 56, 84)
    assert torch.equal(image.spatial_images[0], image.spatial_images[1])
    assert image.token_count == 6


def test_frames_with_other_memory_layouts_give_the_same_pixels(frames):
    for budget in (TRAINING_BUDGET, INFERENCE_BUDGET):
        mirrored = frames[0][:, ::-1]
        copied = np.ascontiguousarray(mirrored)
        ours = [prepare_image(frame, budget).pixel_values for frame in (mirrored, copied)]
        assert torch.equal(*ours)


def test_read_only_frames_are_accepted(frames, small_budget):
    frame = frames[0].copy()
    frame.setflags(write=False)
    prepare_video([frame, frame], small_budget)


def test_frames_of_unequal_size_are_refused_by_number(frames):
    with pytest.raises(ConfigurationError, match=r"Frame 1 has 80x60 pixels but frame 0 has 90x60"):
        prepare_video([frames[0], frames[1][:, :80]])


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_anything_but_colour_bytes_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="uint8"):
        prepare_video([wrong])


def test_no_frame_is_refused():
    with pytest.raises(ConfigurationError, match="no frame"):
        prepare_video([])


@pytest.mark.parametrize("pick", [training_frame_indices, evaluation_frame_indices])
def test_frame_indices_hold_both_ends_and_refuse_impossible_counts(pick):
    assert pick(10, 4)[0] == 0
    assert pick(10, 4)[-1] == 9
    assert pick(1, 1) == [0]
    for count in (0, 11):
        with pytest.raises(ConfigurationError, match=f"Cannot pick {count} of 10"):
            pick(10, count)
