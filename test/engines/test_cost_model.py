import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spatial_mllm_ros.engines.cost_model import DEVICES, budget_table, vggt_cost
from spatial_mllm_ros.engines.profile import EngineProfile
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig, VggtOutput

ALL = tuple(VggtOutput)


@pytest.mark.parametrize(
    ("width_px", "height_px", "frames", "outputs"),
    [
        (518, 392, 3, ("pose", "depth", "points")),
        (644, 476, 16, ("last_layer",)),
    ],
)
def test_the_operations_are_those_that_torch_counts_at_full_size(width_px, height_px, frames, outputs):
    config = VggtConfig.vggt_1b()
    profile = EngineProfile("geometry", width_px, height_px, 1, 1, 1, "bf16", outputs)
    with torch.device("meta"):
        model = VGGT(config).requires_grad_(False)
        images = torch.empty(1, frames, 3, height_px, width_px)
    for head in (model.depth_head, model.point_head):
        head.frames_per_chunk = 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images, profile.outputs)
    assert vggt_cost(config, profile, frames).flop == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_weights_are_those_of_the_model():
    config = VggtConfig.vggt_1b()
    with torch.device("meta"):
        model = VGGT(config).requires_grad_(False)
    profile = EngineProfile("geometry", 518, 392, 2, 2, 2, "fp32", ALL)
    counted = sum(4 * weight.numel() for weight in model.parameters())
    assert vggt_cost(config, profile, 2).weight_bytes == pytest.approx(counted, rel=0.01)


def test_half_precision_halves_the_weights_of_the_aggregator_only():
    config = VggtConfig.vggt_1b()
    whole, half = (
        vggt_cost(config, EngineProfile("fusion", 518, 392, 2, 2, 2, precision), 2) for precision in ("fp32", "bf16")
    )
    assert half.weight_bytes == pytest.approx(whole.weight_bytes / 2)
    assert half.flop == whole.flop


def test_the_table_has_a_row_per_profile_and_number_of_frames():
    profiles = [EngineProfile("geometry", 518, 392, 2, 8, 64, "bf16")]
    table = budget_table(VggtConfig.vggt_1b(), profiles, (2, 128)).splitlines()
    assert len(table) == 4
    assert all(len(line.split("|")) == 8 + len(DEVICES) for line in table)
    assert table[2].startswith("| geometry 518x392 bf16 | 2 |")
