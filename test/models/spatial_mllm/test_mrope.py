import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.mrope import MropeRule, mrope_position_ids

IMAGE, VIDEO, TEXT = 7, 8, 1
RULE = MropeRule(image_token_id=IMAGE, video_token_id=VIDEO, spatial_merge_size=2, tokens_per_second=2)


def row(*parts):
    return torch.tensor([[token for part in parts for token in part]])


def test_text_alone_counts_up_on_all_axes():
    positions, deltas = mrope_position_ids(row([TEXT] * 4), None, RULE)
    assert positions.tolist() == [[[0, 1, 2, 3]]] * 3
    assert deltas.tolist() == [[0]]


def test_text_after_a_video_starts_after_the_largest_position_on_any_axis():
    # 3 steps of 2 s at 2 positions per second: time reaches 2 + 8, height 2 + 0, width 2 + 1.
    ids = row([TEXT] * 2, [VIDEO] * 6, [TEXT] * 2)
    positions, deltas = mrope_position_ids(
        ids, None, RULE, video_grid_thw=torch.tensor([[3, 2, 4]]), second_per_grid_ts=[2.0]
    )
    assert positions[0, 0].tolist() == [0, 1, 2, 2, 6, 6, 10, 10, 11, 12]
    assert positions[1, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 11, 12]
    assert positions[2, 0].tolist() == [0, 1, 2, 3, 2, 3, 2, 3, 11, 12]
    assert deltas.tolist() == [[3]]


def test_an_image_stands_still_in_time():
    positions, _ = mrope_position_ids(row([IMAGE] * 4), None, RULE, image_grid_thw=torch.tensor([[2, 2, 4]]))
    assert positions[0, 0].tolist() == [0, 0, 0, 0]


def test_padding_on_either_side_leaves_the_positions_of_the_tokens_alone():
    tokens = [TEXT, *[VIDEO] * 2, TEXT]
    grid = torch.tensor([[1, 2, 4]])
    alone, _ = mrope_position_ids(row(tokens), None, RULE, video_grid_thw=grid)
    for before, after in ((3, 0), (0, 3), (2, 1)):
        ids = row([TEXT] * before, tokens, [TEXT] * after)
        mask = row([0] * before, [1] * 4, [0] * after)
        padded, deltas = mrope_position_ids(ids, mask, RULE, video_grid_thw=grid)
        assert torch.equal(padded[:, :, before : before + 4], alone)
        assert deltas.item() == int(alone.max()) + 1 - 7


def test_a_row_of_padding_only_is_accepted():
    positions, _ = mrope_position_ids(row([TEXT] * 3), row([0] * 3), RULE)
    assert positions.unique().tolist() == [1]


def test_grids_go_to_rows_in_order():
    ids = torch.tensor([[VIDEO, VIDEO, TEXT], [VIDEO, TEXT, TEXT]])
    positions, _ = mrope_position_ids(ids, None, RULE, video_grid_thw=torch.tensor([[1, 4, 2], [1, 2, 2]]))
    assert positions[1].tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("ids", "grids", "seconds", "message"),
    [
        ([VIDEO] * 2, None, None, "more videos than the 0"),
        ([TEXT] * 2, [[1, 2, 2]], None, "the tokens hold 0 videos"),
        ([VIDEO] * 2 + [TEXT], [[1, 2, 6]], None, "needs 3 placeholder tokens in a row, not 2"),
        ([VIDEO], [[1, 2, 2]], [1.0, 1.0], "2 entries for 1 videos"),
    ],
)
def test_tokens_and_grids_that_do_not_fit_are_refused(ids, grids, seconds, message):
    grid_thw = None if grids is None else torch.tensor(grids)
    with pytest.raises(ConfigurationError, match=message):
        mrope_position_ids(row(ids), None, RULE, video_grid_thw=grid_thw, second_per_grid_ts=seconds)


def test_a_clock_that_stands_still_is_refused():
    with pytest.raises(ConfigurationError, match="tokens_per_second"):
        MropeRule(IMAGE, VIDEO, spatial_merge_size=2, tokens_per_second=0)
