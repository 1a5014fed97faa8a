"""The exact points of a clip's pixels and patches, in the frame of the first camera (as VGGT's) or of each camera."""

from __future__ import annotations

import numpy as np
import torch

from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import inverse_pose
from spatial_mllm_ros.geometry.unprojection import to_scene, unproject_depth


def points_in_first_camera(depth_m: torch.Tensor, scene_from_cam: np.ndarray, intrinsics: Intrinsics) -> torch.Tensor:
    """The point of every pixel, float32 [S, H, W, 3], metres, in the first frame's camera; NaN if it is unknown.

    Args:
        depth_m: float32 [S, H, W]; unknown unless it is finite and above 0.
        scene_from_cam: float64 [S, 4, 4].
        intrinsics: camera of all frames.
    """
    first_from_scene = inverse_pose(scene_from_cam[0])
    frames = []
    for depth, pose in zip(depth_m.cpu().numpy(), scene_from_cam, strict=True):
        points = to_scene(unproject_depth(depth, intrinsics, 1), first_from_scene @ pose)
        points[~(np.isfinite(depth) & (depth > 0))] = np.nan
        frames.append(points)
    return torch.from_numpy(np.stack(frames)).float()


def points_in_camera(depth_m: torch.Tensor, intrinsics: Intrinsics) -> torch.Tensor:
    """The point of every pixel, float32 [S, H, W, 3], metres, in its own frame's camera; NaN if it is unknown.

    Args:
        depth_m: float32 [S, H, W]; unknown unless it is finite and above 0.
        intrinsics: camera of all frames.
    """
    known = depth_m.isfinite() & (depth_m > 0)
    points = torch.from_numpy(np.stack([unproject_depth(depth, intrinsics, 1) for depth in depth_m.cpu().numpy()]))
    return torch.where(known[..., None].cpu(), points.float(), torch.nan)


def blocks_of(values: torch.Tensor, frames: int, side_px: int) -> torch.Tensor:
    """[S, H, W, C] cut into blocks: [S/frames * H/side * W/side, frames * side * side, C], by time, row, column."""
    total, height, width, channels = values.shape
    cut = values.view(total // frames, frames, height // side_px, side_px, width // side_px, side_px, channels).permute(
        0, 2, 4, 1, 3, 5, 6
    )
    return cut.reshape(-1, frames * side_px * side_px, channels)


def patch_points(points: torch.Tensor, patch_px: int) -> torch.Tensor:
    """Mean point of each patch, float32 [S, h * w, 3], of points [S, H, W, 3]; NaN if none of them is known."""
    return blocks_of(points, 1, patch_px).nanmean(1).view(len(points), -1, 3)
