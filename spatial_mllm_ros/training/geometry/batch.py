"""The data of geometry training: images with exact depth and cameras, and what VGGT should predict from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.poses import quaternion_from_matrix

PATCH_PX = 14  #: side of VGGT's patches; the sides of its images are multiples of it
_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True, eq=False)
class GeometryBatch:
    """B samples of S frames; frame 0 of a sample is its reference.

    Attributes:
        images: float32 [B, S, 3, H, W], R G B in [0, 1], H and W multiples of 14.
        depth_m: float32 [B, S, H, W], metres along the camera's z axis; any value where ``mask`` is false.
        mask: bool [B, S, H, W], where the depth is known.
        cam_from_world: float32 [B, S, 3, 4], rigid, metres, OpenCV axes; the world may be any frame.
        intrinsics_px: float32 [B, S, 3, 3], pixel (0, 0) is the centre of the top-left pixel.

    Raises:
        ConfigurationError: shapes that do not fit each other.
    """

    images: Tensor
    depth_m: Tensor
    mask: Tensor
    cam_from_world: Tensor
    intrinsics_px: Tensor

    def __post_init__(self) -> None:
        batch, frames, _, height, width = self.images.shape
        for name, wanted in (
            ("images", (batch, frames, 3, height, width)),
            ("depth_m", (batch, frames, height, width)),
            ("mask", (batch, frames, height, width)),
            ("cam_from_world", (batch, frames, 3, 4)),
            ("intrinsics_px", (batch, frames, 3, 3)),
        ):
            if tuple(getattr(self, name).shape) != wanted:
                raise ConfigurationError(
                    f"GeometryBatch.{name} has shape {list(getattr(self, name).shape)}; expected {list(wanted)}."
                )

    def to(self, device: torch.device) -> GeometryBatch:
        """The same on ``device``."""
        return GeometryBatch(*(value.to(device) for value in vars(self).values()))


class GeometryBatches(Protocol):
    """Where batches come from. They are asked for by number, so that a resumed run sees the same ones.

    Attributes:
        sha256: what the data are, name -> hash: files, or the generator's settings.
    """

    @property
    def sha256(self) -> Mapping[str, str]:
        """See the class."""
        ...

    def batch(self, index: int) -> GeometryBatch:
        """Training batch ``index`` (from 0, without end): the same one whenever it is asked for."""
        ...

    def held_out(self, count: int) -> Sequence[GeometryBatch]:
        """``count`` batches that are never trained on, always the same; fewer, or none, if there are no more."""
        ...

    @property
    def rejected(self) -> int:
        """How many broken samples have been left out so far."""
        ...


@dataclass(frozen=True, eq=False)
class GeometryTargets:
    """What VGGT should predict from a batch, in the frame of each sample's first camera and divided by ``scale_m``.

    Attributes:
        pose_encoding: float32 [B, S, 9], as ``VggtPrediction``'s, quaternions of unit length with w >= 0.
        depth: float32 [B, S, H, W]; 0 where the depth is not known.
        points: float32 [B, S, H, W, 3]; 0 where the depth is not known.
        mask: bool [B, S, H, W].
        scale_m: float32 [B], the length in metres that is 1 in the targets.
    """

    pose_encoding: Tensor
    depth: Tensor
    points: Tensor
    mask: Tensor
    scale_m: Tensor


def targets_of(batch: GeometryBatch, *, unit_m: float | None) -> GeometryTargets:
    """The targets of a batch.

    Args:
        unit_m: the length that is 1 in the targets. With None it is for each sample the mean distance of its known
            points from the first camera (VGGT, section 3.3), so that metric scale is not learned.
    """
    mask = batch.mask & batch.depth_m.isfinite() & (batch.depth_m > 0)
    depth_m = torch.where(mask, batch.depth_m, 0.0)
    cam_from_first = relative_to_first(batch.cam_from_world)
    points_m = world_points(depth_m, batch.intrinsics_px, cam_from_first)
    points_m = torch.where(mask[..., None], points_m, 0.0)
    if unit_m is None:
        known = mask.flatten(1).sum(1).clamp(min=1)
        scale_m = (points_m.norm(dim=-1).flatten(1).sum(1) / known).clamp(min=_SMALLEST_SCALE)
    else:
        scale_m = torch.full((mask.shape[0],), unit_m, device=mask.device)
    height, width = depth_m.shape[-2:]
    quaternion = torch.from_numpy(quaternion_from_matrix(cam_from_first[..., :3].cpu().numpy())).to(depth_m)
    focal_y, focal_x = batch.intrinsics_px[..., 1, 1], batch.intrinsics_px[..., 0, 0]
    view = torch.stack((2 * torch.atan(height / 2 / focal_y), 2 * torch.atan(width / 2 / focal_x)), dim=-1)
    translation = cam_from_first[..., 3] / scale_m[:, None, None]
    return GeometryTargets(
        pose_encoding=torch.cat((translation, quaternion, view), dim=-1),
        depth=depth_m / scale_m[:, None, None, None],
        points=points_m / scale_m[:, None, None, None, None],
        mask=mask,
        scale_m=scale_m,
    )


def relative_to_first(cam_from_world: Tensor) -> Tensor:
    """Camera poses [B, S, 3, 4] with the first camera of each sample as the world."""
    rotation, translation = cam_from_world[..., :3], cam_from_world[..., 3:]
    first_rotation, first_translation = rotation[:, :1], translation[:, :1]
    relative = rotation @ first_rotation.transpose(-1, -2)
    return torch.cat((relative, translation - relative @ first_translation), dim=-1)


def world_points(depth: Tensor, intrinsics_px: Tensor, cam_from_world: Tensor) -> Tensor:
    """Points [B, S, H, W, 3] in the world, of depth [B, S, H, W] along z, cameras [B, S, 3, 3] and [B, S, 3, 4]."""
    height, width = depth.shape[-2:]
    v, u = torch.meshgrid(
        torch.arange(height, device=depth.device, dtype=depth.dtype),
        torch.arange(width, device=depth.device, dtype=depth.dtype),
        indexing="ij",
    )
    fx, fy, cx, cy = (intrinsics_px[..., i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    in_cam = torch.stack(((u - cx) / fx * depth, (v - cy) / fy * depth, depth), dim=-1)
    rotation, translation = cam_from_world[..., :3], cam_from_world[..., 3]
    # R^T (p - t), with points as rows.
    shifted = in_cam - translation[:, :, None, None]
    return torch.einsum("bshwi,bsij->bshwj", shifted, rotation)
