import numpy as np
import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import cameras_from_vggt_pose_encoding, inverse_pose
from spatial_mllm_ros.geometry.unprojection import to_scene, unproject_depth
from spatial_mllm_ros.training.geometry.batch import GeometryBatch, targets_of


def test_points_stand_in_the_first_camera_and_agree_with_unprojection(scene_batch):
    batch = scene_batch(1, batch=2)
    targets = targets_of(batch, unit_m=2.0)
    for sample in range(2):
        first = np.vstack([batch.cam_from_world[sample, 0].double().numpy(), [0, 0, 0, 1]])
        for frame in range(3):
            k = batch.intrinsics_px[sample, frame].double().numpy()
            camera = Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2], 42, 28)
            in_cam = unproject_depth(batch.depth_m[sample, frame].numpy(), camera)
            in_first = to_scene(in_cam, first @ inverse_pose(batch.cam_from_world[sample, frame].numpy()))
            known = batch.mask[sample, frame].numpy()
            assert known.any()
            np.testing.assert_allclose(targets.points[sample, frame].numpy()[known], in_first[known] / 2, atol=1e-4)


def test_the_pose_encoding_is_the_one_that_vggt_speaks(scene_batch):
    batch = scene_batch(2)
    targets = targets_of(batch, unit_m=0.5)
    cameras = cameras_from_vggt_pose_encoding(targets.pose_encoding.numpy(), width_px=42, height_px=28)
    np.testing.assert_allclose(cameras.intrinsics, batch.intrinsics_px.numpy(), atol=1e-3)
    first = np.vstack([batch.cam_from_world[0, 0].double().numpy(), [0, 0, 0, 1]])
    for frame in range(3):
        whole = np.vstack([batch.cam_from_world[0, frame].double().numpy(), [0, 0, 0, 1]])
        relative = (whole @ np.linalg.inv(first))[:3]
        relative[:, 3] /= 0.5
        np.testing.assert_allclose(cameras.cam_from_world[0, frame], relative, atol=1e-4)


def test_normalised_points_have_a_mean_distance_of_one_whatever_the_scale(scene_batch):
    batch = scene_batch(3, batch=2)
    twice = GeometryBatch(
        batch.images,
        2 * batch.depth_m,
        batch.mask,
        torch.cat([batch.cam_from_world[..., :3], 2 * batch.cam_from_world[..., 3:]], -1),
        batch.intrinsics_px,
    )
    one, other = targets_of(batch, unit_m=None), targets_of(twice, unit_m=None)
    for sample in range(2):
        distances = one.points[sample][one.mask[sample]].norm(dim=-1)
        assert float(distances.mean()) == pytest.approx(1, abs=1e-4)
    assert torch.allclose(one.pose_encoding, other.pose_encoding, atol=1e-5)
    assert torch.allclose(2 * one.scale_m, other.scale_m)


def test_unknown_and_impossible_depths_are_left_out(scene_batch):
    batch = scene_batch(4)
    batch.depth_m[0, 0, 0, :3] = torch.tensor([0.0, -1.0, float("nan")])
    targets = targets_of(batch, unit_m=1.0)
    assert not targets.mask[0, 0, 0, :3].any()
    assert targets.points.isfinite().all()


def test_shapes_that_do_not_fit_are_named(scene_batch):
    batch = scene_batch(5)
    with pytest.raises(ConfigurationError, match=r"GeometryBatch\.mask has shape \[1, 2, 28, 42\]"):
        GeometryBatch(batch.images, batch.depth_m, batch.mask[:, :2], batch.cam_from_world, batch.intrinsics_px)
