from dataclasses import replace

import pytest
import torch

from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.training.geometry.batch import targets_of
from spatial_mllm_ros.training.geometry.config import GeometryLossConfig
from spatial_mllm_ros.training.geometry.loss import GeometryObjective, camera_loss, dense_loss

CONFIG = GeometryLossConfig()


@pytest.fixture
def targets(scene_batch):
    return targets_of(scene_batch(1), unit_m=1.0)


def test_the_truth_costs_nothing_but_the_doubt_about_it(targets):
    assert float(camera_loss([targets.pose_encoding] * 2, targets, CONFIG)) == 0
    doubt = torch.full_like(targets.depth, 3.0)
    loss = dense_loss(targets.points, doubt, targets.points, targets.mask, CONFIG)
    assert float(loss) == pytest.approx(float(-0.2 * torch.tensor(3.0).log()), abs=1e-4)


def test_a_later_refinement_step_weighs_more(targets):
    wrong = targets.pose_encoding + 0.5
    early = camera_loss([wrong, targets.pose_encoding], targets, CONFIG)
    late = camera_loss([targets.pose_encoding, wrong], targets, CONFIG)
    assert float(early / late) == pytest.approx(0.6)


def test_confidence_is_best_where_it_matches_the_error(targets):
    """error x c - 0.2 log c is least at c = 0.2 / error."""
    plain = replace(CONFIG, gradient=0.0)
    confidence = torch.full_like(targets.depth, 4.0).requires_grad_()
    for error, sign in ((0.01, -1), (0.05, 0), (0.25, 1)):
        predicted = targets.depth[..., None] + error
        loss = dense_loss(predicted, confidence, targets.depth[..., None], targets.mask, plain)
        slope = torch.autograd.grad(loss, confidence)[0].sum()
        assert (float(slope) > 1e-4) - (float(slope) < -1e-4) == sign


def test_the_gradient_term_sees_edges_and_not_offsets(targets):
    ones, depth = torch.ones_like(targets.depth), targets.depth[..., None]
    flat = replace(CONFIG, gradient=0.0)
    offset = depth + 0.1
    assert float(dense_loss(offset, ones, depth, targets.mask, CONFIG)) == pytest.approx(0.1, abs=1e-4)
    striped = depth.clone()
    striped[..., ::2, :] += 0.2
    extra = dense_loss(striped, ones, depth, targets.mask, CONFIG) - dense_loss(
        striped, ones, depth, targets.mask, flat
    )
    assert float(extra) == pytest.approx(0.2, abs=0.01)  # between columns; none between rows


def test_what_is_unknown_has_neither_loss_nor_gradient(targets):
    predicted = targets.depth[..., None].clone()
    predicted[~targets.mask] = 1e6
    predicted.requires_grad_()
    loss = dense_loss(predicted, torch.ones_like(targets.depth), targets.depth[..., None], targets.mask, CONFIG)
    assert float(loss.detach()) < 1e-4
    loss.backward()
    assert not predicted.grad[~targets.mask].any()
    assert predicted.grad.isfinite().all()


def test_every_weight_of_vggt_that_is_used_gets_a_gradient(start, scene_batch):
    vggt = load_spatial_mllm(start).model.spatial_encoder.train().requires_grad_(True)
    terms = GeometryObjective(vggt, CONFIG)(scene_batch(2, batch=2))
    assert set(terms) == {"loss", "camera", "depth", "points"}
    terms["loss"].backward()
    silent = [name for name, weight in vggt.named_parameters() if weight.grad is None or not weight.grad.any()]
    # Attention over keys does not feel a bias that all keys share; mask_token is of the encoder's pre-training.
    assert [name for name in silent if not name.endswith(("mask_token", "k_norm.bias"))] == []
