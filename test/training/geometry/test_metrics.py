import math

import pytest
import torch
from torch import nn

from spatial_mllm_ros.geometry.poses import matrix_from_quaternion, quaternion_from_matrix
from spatial_mllm_ros.models.vggt import VggtPrediction
from spatial_mllm_ros.training.geometry.batch import relative_to_first, targets_of
from spatial_mllm_ros.training.geometry.metrics import measure_geometry


class Oracle(nn.Module):
    """Says what a function makes of the truth."""

    camera_head = depth_head = True

    def __init__(self, batch, change, unit_m):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        targets = targets_of(batch, unit_m=unit_m)
        self.answer = change(VggtPrediction(pose_encoding=targets.pose_encoding.clone(), depth=targets.depth.clone()))

    def forward(self, images, outputs):
        return self.answer


@pytest.fixture
def batch(scene_batch):
    return scene_batch(7, batch=2, frames=4)


@pytest.fixture
def measured(batch):
    def measure(change, *, unit_m=1.5):
        return measure_geometry(Oracle(batch, change, unit_m), [batch], unit_m=unit_m)

    return measure


def test_the_truth_has_no_error_in_any_unit(measured):
    for unit_m in (1.5, None):
        found = measured(lambda truth: truth, unit_m=unit_m)
        assert set(found) == {
            *("depth_abs_rel", "depth_abs_rel_aligned"),
            *("rotation_median_deg", "translation_median_m", "view_median_deg"),
        }
        assert max(found.values()) < 0.02


def test_a_depth_too_large_everywhere_is_an_error_of_scale_alone(measured):
    found = measured(lambda truth: VggtPrediction(truth.pose_encoding, 1.25 * truth.depth))
    assert found["depth_abs_rel"] == pytest.approx(0.25, abs=1e-3)
    assert found["depth_abs_rel_aligned"] == pytest.approx(0, abs=1e-3)


def test_a_turn_of_the_whole_world_is_no_rotation_error_and_one_of_a_camera_is(measured, rotation):
    def turned(which):
        def change(truth):
            turn = rotation([0.2, 1, -0.4], math.radians(20))
            matrices = matrix_from_quaternion(truth.pose_encoding[..., 3:7].numpy())
            matrices = matrices @ turn if which == "world" else turn @ matrices
            if which == "one camera":
                matrices[:, :1] = turn.T @ matrices[:, :1]
            encoding = truth.pose_encoding.clone()
            encoding[..., 3:7] = torch.from_numpy(quaternion_from_matrix(matrices))
            return VggtPrediction(encoding, truth.depth)

        return change

    assert measured(turned("world"))["rotation_median_deg"] < 0.02
    # All but the first camera are turned: half of the six pairs have the first one in them.
    assert measured(turned("one camera"))["rotation_median_deg"] > 1


def test_positions_are_measured_in_metres_from_the_first_camera(measured, batch):
    def still(truth):
        encoding = truth.pose_encoding.clone()
        encoding[..., :3] = 0
        return VggtPrediction(encoding, truth.depth)

    relative = relative_to_first(batch.cam_from_world)
    walked = relative[:, 1:, :, 3].norm(dim=-1).flatten()
    assert measured(still)["translation_median_m"] == pytest.approx(float(walked.quantile(0.5)), abs=1e-3)
