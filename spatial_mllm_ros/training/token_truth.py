"""What each visual token shows, as a second thing to learn from: answers alone say little about single tokens.

A linear head on the fused tokens, which training drops at the end, names the thing that a token shows and where its
surface is. The language model then finds both in the token in a form that one linear map reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from spatial_mllm_ros.datasets.rooms.catalog import LABELS
from spatial_mllm_ros.datasets.rooms.clips import Clip
from spatial_mllm_ros.datasets.rooms.points import blocks_of, patch_points, points_in_first_camera
from spatial_mllm_ros.models.preparation import MERGE, PATCH_PX

UNIT_M = 3.0
_BACKGROUND = 0  # walls, floor, ceiling; the class of LABELS[n] is n + 1
_SMALLEST_SHARE = 0.04  # of a token's pixels: less of a thing does not make it what the token shows
_LENGTH_UNIT_M = 1.0


@dataclass(frozen=True, eq=False)
class TokenTruth:
    """Truth of one video of S frames of h x w patches; T = S/2 * h/2 * w/2 visual tokens, in their order.

    Attributes:
        classes: int64 [T], 0 for none, n + 1 for ``LABELS[n]``: the thing with the most pixels.
        surfaces_m: float32 [T, 3], mean of the points that the token shows, in the first camera's frame.
        lengths_m: float32 [T], longest side of that thing; 0 for none.
        patches_m: float32 [S, h * w, 3], mean point of each patch, in the first camera's frame; NaN where unknown.
    """

    classes: torch.Tensor
    surfaces_m: torch.Tensor
    lengths_m: torch.Tensor
    patches_m: torch.Tensor


def token_truth(clip: Clip) -> TokenTruth:
    """The truth of a clip whose size needs no resizing: sides multiples of 28, an even number of frames."""
    depth_m, instance = clip.depth_m.cpu(), clip.instance.cpu().long()
    pair, side = (2, MERGE * PATCH_PX)
    points = points_in_first_camera(depth_m, clip.scene_from_cam, clip.intrinsics)
    blocks = blocks_of(instance[..., None], pair, side)[..., 0]
    count = len(clip.annotation.objects) + 1
    pixels = F.one_hot(blocks, count).sum(1)[:, 1:]
    most, which = pixels.max(-1) if count > 1 else (torch.zeros(len(blocks)), torch.zeros(len(blocks)).long())
    shown = most >= _SMALLEST_SHARE * blocks.shape[1]
    kinds = torch.tensor([LABELS.index(thing.label) + 1 for thing in clip.annotation.objects] or [_BACKGROUND])
    lengths = torch.tensor([float(thing.box.size_m.max()) for thing in clip.annotation.objects] or [0.0])
    surfaces = blocks_of(points, pair, side)
    # Where a thing is shown, its own surface counts, not what is behind it.
    own = (blocks == which[:, None] + 1) | ~shown[:, None]
    surfaces = torch.where(own[..., None], surfaces, torch.nan).nanmean(1)
    return TokenTruth(
        classes=torch.where(shown, kinds[which], _BACKGROUND),
        surfaces_m=surfaces.float(),
        lengths_m=torch.where(shown, lengths[which], 0.0).float(),
        patches_m=patch_points(points, PATCH_PX),
    )


class TokenTruthHead(nn.Module):
    """Linear readings of visual tokens of width D: class, surface point, length."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, len(LABELS) + 1)
        self.places = nn.Linear(width, 4)

    def forward(self, tokens: torch.Tensor, truth: TokenTruth) -> dict[str, torch.Tensor]:
        """Tokens [T, D] of one video -> ``token_loss`` (mean) and ``token_class_accuracy`` (of tokens with a thing)."""
        seen = self.norm(tokens.float())
        classes, surfaces_m = truth.classes.to(tokens.device), truth.surfaces_m.to(tokens.device)
        lengths_m = truth.lengths_m.to(tokens.device)
        named = self.classes(seen)
        places = self.places(seen)
        thing = classes != _BACKGROUND
        loss = F.cross_entropy(named, classes)
        known = surfaces_m.isfinite().all(-1)
        if bool(known.any()):
            loss = loss + F.smooth_l1_loss(places[known, :3], surfaces_m[known] / UNIT_M, beta=0.1)
        accuracy = torch.zeros((), device=tokens.device)
        if bool(thing.any()):
            loss = loss + F.smooth_l1_loss(places[thing, 3], (lengths_m[thing] / _LENGTH_UNIT_M).log(), beta=0.1)
            accuracy = (named[thing].argmax(-1) == classes[thing]).float().mean()
        return {"token_loss": loss, "token_class_accuracy": accuracy}
