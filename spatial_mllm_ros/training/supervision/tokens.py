"""Dense supervision of visual tokens: what each token shows and where that is; answers alone say little about a token.

Heads on the visual tokens, which training drops at the end, name the things in each of a token's eight patches and
predict where their surfaces are. Names are also predicted from the similarity of the token with the language model's
word embeddings, so that attention from a word in a question finds the tokens that show the thing; everything else is
predicted by one linear map.
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
# Names, depth and the motion of the camera weigh about the same. If the frames of a walk lie far apart, most of the
# error in the first camera's frame comes from poses that cannot be estimated, and would dominate the depth.
_NAMES, _IN_CAMERA, _IN_FIRST_CAMERA = 0.25, 20.0, 2.0
_RARE = -4.0  # log-odds of every name at the start: a patch shows 2 % of the classes
# Fixed, so that a token has to be similar to the words of what it shows (a cosine of 0.4 for even odds): attention then
# finds it among a hundred others. With a learned gain a very small similarity would be enough.
_WORD_GAIN = 10.0


@dataclass(frozen=True, eq=False)
class TokenTargets:
    """What one video of S frames of h x w patches shows, K classes.

    Attributes:
        grid: h and w.
        shown: bool [S, h * w, K]: which of ``LABELS`` a patch shows.
        in_camera_m: float32 [S, h * w, 3], mean point of a patch in its own frame's camera; NaN if unknown.
        patches_m: float32 [S, h * w, 3], mean point of a patch in the first frame's camera; NaN if unknown.
    """

    grid: tuple[int, int]
    shown: torch.Tensor
    in_camera_m: torch.Tensor
    patches_m: torch.Tensor


def token_targets(clip: Clip) -> TokenTargets:
    """The targets of a clip whose sides are multiples of 28 (so it is not resized), with an even number of frames."""
    depth_m, instance = clip.depth_m.cpu(), clip.instance.cpu().long()
    class_of = torch.tensor([0, *(LABELS.index(thing.label) + 1 for thing in clip.annotation.objects)])
    pixels = blocks_of(class_of[instance][..., None], 1, PATCH_PX)[..., 0]  # [S * h * w, 14 * 14]
    count = torch.zeros(len(pixels), len(LABELS) + 1).scatter_add_(1, pixels, torch.ones(pixels.shape))
    share = count[:, 1:] / pixels.shape[1]
    frames, height, width = depth_m.shape
    return TokenTargets(
        grid=(height // PATCH_PX, width // PATCH_PX),
        shown=(share >= _SMALLEST_SHARE).view(frames, -1, len(LABELS)),
        in_camera_m=patch_points(points_in_camera(depth_m, clip.intrinsics), PATCH_PX),
        patches_m=patch_points(points_in_first_camera(depth_m, clip.scene_from_cam, clip.intrinsics), PATCH_PX),
    )


def word_tokens(tokenizer: ChatTokenizer, words: Sequence[str]) -> torch.Tensor:
    """The last token of each word, int64 [len(words)]: its only token if the vocabulary holds the word."""
    return torch.tensor([tokenizer.encode_text(word)[-1] for word in words])


class TokenHead(nn.Module):
    """Predicts names and places from visual tokens of width D, with the same weights for both branches' tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.names = nn.Linear(width, MERGED_PATCHES * len(LABELS))
        self.places = nn.Linear(width, MERGED_PATCHES * 6)
        nn.init.constant_(self.names.bias, _RARE)

    def name_terms(self, tokens: torch.Tensor, words: torch.Tensor, targets: TokenTargets) -> dict[str, torch.Tensor]:
        """``name_loss``, and ``name_accuracy``: of patches that show a thing, how often they show the likeliest class.

        Args:
            tokens: [T, D] of one video.
            words: [K, D], the language model's embeddings of ``LABELS``.
        """
        seen = _plain(tokens)
        shown = merged_rows(targets.shown.to(tokens.device).float(), targets.grid, Fusion.V1_0)
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

    def place_terms(self, tokens: torch.Tensor, targets: TokenTargets) -> dict[str, torch.Tensor]:
        """``place_loss``, and ``depth_error``: mean error of the patches' depth, divided by the true depth."""
        both = torch.cat((targets.in_camera_m, targets.patches_m), dim=-1).to(tokens.device) / UNIT_M
        weights = torch.tensor([_IN_CAMERA] * 3 + [_IN_FIRST_CAMERA] * 3, device=tokens.device).repeat(MERGED_PATCHES)
        wanted = merged_rows(both, targets.grid, Fusion.V1_0)
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
