"""What each visual token shows, as a second thing to learn from: answers alone say little about single tokens.

Readings of the visual tokens, which training drops at the end, name the things in each of a token's eight patches and
say where their surfaces are. Names are read by comparing the token with the words of the language model, so that a word
in a question finds its things by likeness; everything else is read by one linear map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from spatial_mllm_ros.models.spatial_mllm.connectors import MERGED_PATCHES, Fusion, merged_rows
from spatial_mllm_ros.models.spatial_mllm.preparation import PATCH_PX
from spatial_mllm_ros.models.spatial_mllm.tokenization import ChatTokenizer
from spatial_mllm_ros.rooms.clips import Clip
from spatial_mllm_ros.rooms.points import blocks_of, patch_points, points_in_camera, points_in_first_camera
from spatial_mllm_ros.rooms.world.catalog import LABELS

UNIT_M = 3.0
_SMALLEST_SHARE = 0.04  # of a patch's pixels: less of a thing does not count as shown
_HUBER = 0.1  # of UNIT_M: errors beyond 30 cm count linearly
# Balanced so that names, depth and the motion of the camera weigh about the same; where frames of a walk lie far apart
# most of the error in the first camera's frame is that of poses nobody could tell, and would drown the depth.
_NAMES, _IN_CAMERA, _IN_FIRST_CAMERA = 0.25, 20.0, 2.0
_RARE = -4.0  # log-odds that readings of names begin with: a patch shows 2 % of the classes
# Fixed, so that a token has to look like the words of what it shows (a cosine of 0.4 for even odds): attention then
# finds it among a hundred others. A learned gain would be content with a trace of them.
_WORD_GAIN = 10.0


@dataclass(frozen=True, eq=False)
class TokenTruth:
    """Truth of one video of S frames of h x w patches, K classes.

    Attributes:
        grid: h and w.
        shown: bool [S, h * w, K]: which of ``LABELS`` a patch shows.
        in_camera_m: float32 [S, h * w, 3], mean point of a patch in its own frame's camera; NaN where unknown.
        patches_m: float32 [S, h * w, 3], the same in the first frame's camera.
    """

    grid: tuple[int, int]
    shown: torch.Tensor
    in_camera_m: torch.Tensor
    patches_m: torch.Tensor


def token_truth(clip: Clip) -> TokenTruth:
    """The truth of a clip whose size needs no resizing: sides multiples of 28, an even number of frames."""
    depth_m, instance = clip.depth_m.cpu(), clip.instance.cpu().long()
    class_of = torch.tensor([0, *(LABELS.index(thing.label) + 1 for thing in clip.annotation.objects)])
    pixels = blocks_of(class_of[instance][..., None], 1, PATCH_PX)[..., 0]  # [S * h * w, 14 * 14]
    count = torch.zeros(len(pixels), len(LABELS) + 1).scatter_add_(1, pixels, torch.ones(pixels.shape))
    share = count[:, 1:] / pixels.shape[1]
    frames, height, width = depth_m.shape
    return TokenTruth(
        grid=(height // PATCH_PX, width // PATCH_PX),
        shown=(share >= _SMALLEST_SHARE).view(frames, -1, len(LABELS)),
        in_camera_m=patch_points(points_in_camera(depth_m, clip.intrinsics), PATCH_PX),
        patches_m=patch_points(points_in_first_camera(depth_m, clip.scene_from_cam, clip.intrinsics), PATCH_PX),
    )


def word_tokens(tokenizer: ChatTokenizer, words: Sequence[str]) -> torch.Tensor:
    """The token that each word ends with, int64 [len(words)]: its only one where the vocabulary holds the word."""
    return torch.tensor([tokenizer.encode_text(word)[-1] for word in words])


class TokenTruthHead(nn.Module):
    """Readings of visual tokens of width D: names and places, with the same maps whichever branch they come from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.names = nn.Linear(width, MERGED_PATCHES * len(LABELS))
        self.places = nn.Linear(width, MERGED_PATCHES * 6)
        nn.init.constant_(self.names.bias, _RARE)

    def name_terms(self, tokens: torch.Tensor, words: torch.Tensor, truth: TokenTruth) -> dict[str, torch.Tensor]:
        """``name_loss`` and ``name_accuracy``: of the patches that show a thing, the likeliest class is shown.

        Args:
            tokens: [T, D] of one video.
            words: [K, D], the language model's embeddings of ``LABELS``.
        """
        seen = _plain(tokens)
        shown = merged_rows(truth.shown.to(tokens.device).float(), truth.grid, Fusion.V1_0)
        named = self.names(seen)
        patches, of_patch = shown.unflatten(1, (MERGED_PATCHES, -1)), named.unflatten(1, (MERGED_PATCHES, -1))
        cosine = F.cosine_similarity(seen[:, None], words.float(), dim=-1)
        alike = _WORD_GAIN * cosine + _RARE
        loss = F.binary_cross_entropy_with_logits(named, shown, reduction="sum") / MERGED_PATCHES
        loss = loss + F.binary_cross_entropy_with_logits(alike, patches.amax(1), reduction="sum")
        has_thing = patches.any(-1)
        right = patches.gather(-1, of_patch.argmax(-1, keepdim=True))[..., 0]
        accuracy = (right * has_thing).sum() / has_thing.sum().clamp(min=1)
        return {"name_loss": _NAMES * loss / len(tokens), "name_accuracy": accuracy.detach()}

    def place_terms(self, tokens: torch.Tensor, truth: TokenTruth) -> dict[str, torch.Tensor]:
        """``place_loss``, and ``depth_error``: mean error of the patches' depth over their true depth."""
        both = torch.cat((truth.in_camera_m, truth.patches_m), dim=-1).to(tokens.device) / UNIT_M
        weights = torch.tensor([_IN_CAMERA] * 3 + [_IN_FIRST_CAMERA] * 3, device=tokens.device).repeat(MERGED_PATCHES)
        wanted = merged_rows(both, truth.grid, Fusion.V1_0)
        known = wanted.isfinite()
        placed = self.places(_plain(tokens))
        errors = F.smooth_l1_loss(placed, wanted.nan_to_num(0.0), beta=_HUBER, reduction="none")
        loss = (weights * errors * known).sum() / known.sum().clamp(min=1)
        z, true_z = (values.unflatten(1, (MERGED_PATCHES, -1))[..., 2] for values in (placed, wanted))
        depth = ((z - true_z) / true_z).abs()[true_z.isfinite()]
        error = depth.mean() if len(depth) else torch.zeros((), device=tokens.device)
        return {"place_loss": loss, "depth_error": error.detach()}


def _plain(tokens: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(tokens.float(), tokens.shape[-1:])
