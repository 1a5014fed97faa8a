"""Errors of a VGGT's geometry on samples whose depth and cameras are known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from spatial_mllm_ros.geometry.poses import (
    cameras_from_vggt_pose_encoding,
    rotation_angle_rad,
)
from spatial_mllm_ros.models.vggt import VGGT, VggtOutput
from spatial_mllm_ros.training.geometry.batch import GeometryBatch, relative_to_first, targets_of


@torch.inference_mode()
def measure_geometry(vggt: VGGT, batches: Iterable[GeometryBatch], *, unit_m: float | None) -> dict[str, float]:
    """Errors of depth and cameras over all samples; {} without any.

    Args:
        unit_m: the length in metres that is 1 in the model. None for a model without scale: each sample is then
            measured at its true scale.

    Returns:
        depth_abs_rel: mean over known pixels of |error| / depth, mean over the samples;
        depth_abs_rel_aligned: the same after the sample's median ratio is taken out;
        rotation_median_deg: over all pairs of frames, of their relative rotation;
        translation_median_m: over all frames but the first, of the camera's position in the first camera's frame;
        view_median_deg: of the vertical field of view.
        The errors of a missing head are left out.
    """
    device = next(vggt.parameters()).device
    was_training = vggt.training
    vggt.eval()
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        for name, values in _errors(vggt, batch.to(device), unit_m).items():
            found.setdefault(name, []).append(values)
    vggt.train(was_training)
    joined = {name: np.concatenate(values) for name, values in found.items()}
    return {name: float(all_.mean() if "abs_rel" in name else np.median(all_)) for name, all_ in joined.items()}


def _errors(vggt: VGGT, batch: GeometryBatch, unit_m: float | None) -> dict[str, np.ndarray]:
    targets = targets_of(batch, unit_m=unit_m)
    scale_m = targets.scale_m
    has = {VggtOutput.POSE: vggt.camera_head, VggtOutput.DEPTH: vggt.depth_head}
    seen = vggt(batch.images, [output for output, head in has.items() if head is not None])
    errors: dict[str, np.ndarray] = {}
    if seen.depth is not None:
        pairs = [(p[m], t[m]) for p, t, m in zip(seen.depth, targets.depth, targets.mask, strict=True) if m.any()]
        aligned = [(p * (t / p).median(), t) for p, t in pairs]
        for name, both in (("depth_abs_rel", pairs), ("depth_abs_rel_aligned", aligned)):
            errors[name] = np.array([float(((p - t).abs() / t).mean()) for p, t in both])
    if seen.pose_encoding is not None:
        height, width = batch.images.shape[-2:]
        encoding = seen.pose_encoding.double().cpu().numpy()
        cameras = cameras_from_vggt_pose_encoding(encoding, width_px=width, height_px=height)
        predicted = relative_to_first(torch.from_numpy(cameras.cam_from_world))
        truth = relative_to_first(batch.cam_from_world.double().cpu())
        errors["rotation_median_deg"] = _rotation_errors_deg(predicted[..., :3], truth[..., :3])
        centres = [_centres(predicted) * scale_m.double().cpu()[:, None, None], _centres(truth)]
        errors["translation_median_m"] = (centres[0] - centres[1]).norm(dim=-1)[:, 1:].flatten().numpy()
        view = np.abs(encoding[..., 7] - targets.pose_encoding[..., 7].double().cpu().numpy())
        errors["view_median_deg"] = np.degrees(view).ravel()
    return errors


def _rotation_errors_deg(predicted: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """Angles between predicted and true relative rotations of all pairs of frames; rotations [B, S, 3, 3]."""
    first, second = np.triu_indices(truth.shape[1], 1)
    relative = [r[:, second] @ r[:, first].transpose(-1, -2) for r in (predicted, truth)]
    return np.degrees(rotation_angle_rad((relative[0] @ relative[1].transpose(-1, -2)).numpy())).ravel()


def _centres(cam_from_world: torch.Tensor) -> torch.Tensor:
    """Camera positions in the world, [B, S, 3]."""
    return -(cam_from_world[..., :3].transpose(-1, -2) @ cam_from_world[..., 3:])[..., 0]
