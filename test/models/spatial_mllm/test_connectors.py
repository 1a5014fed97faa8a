import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion, connector_for, merged_rows

CHANNELS, GRID = 5, (4, 6)


def coded_tokens():
    """[4, 24, 5] whose value tells frame, patch row, patch column and channel in decimal digits."""
    f, y, x, c = torch.meshgrid(*(torch.arange(n) for n in (4, *GRID, CHANNELS)), indexing="ij")
    return (f * 1000 + y * 100 + x * 10 + c).reshape(4, -1, CHANNELS).float()


def test_rows_of_v11_go_by_patch_row_patch_column_channel_frame():
    rows = merged_rows(coded_tokens(), GRID, Fusion.V1_1)
    second_pair_lower_middle = rows[1 * 6 + 1 * 3 + 1]
    expected = [
        (2 + t) * 1000 + (2 + y) * 100 + (2 + x) * 10 + c
        for y in (0, 1)
        for x in (0, 1)
        for c in range(5)
        for t in (0, 1)
    ]
    assert second_pair_lower_middle.tolist() == expected


def test_rows_of_v10_go_by_frame_patch_row_patch_column_channel():
    rows = merged_rows(coded_tokens(), GRID, Fusion.V1_0)
    first_pair_upper_right = rows[2]
    expected = [t * 1000 + y * 100 + (4 + x) * 10 + c for t in (0, 1) for y in (0, 1) for x in (0, 1) for c in range(5)]
    assert first_pair_upper_right.tolist() == expected


@pytest.mark.parametrize(("frames", "grid"), [(3, (4, 6)), (4, (3, 8)), (4, (4, 4))])
def test_what_cannot_be_merged_is_refused(frames, grid):
    with pytest.raises(ConfigurationError, match="cannot be merged"):
        merged_rows(torch.zeros(frames, 24, CHANNELS), grid, Fusion.V1_1)


@pytest.mark.parametrize("fusion", list(Fusion))
def test_one_addition_per_visual_token(fusion):
    added = connector_for(fusion, spatial_dim=CHANNELS, language_dim=11)(coded_tokens(), GRID)
    assert added.shape == (2 * 2 * 3, 11)
