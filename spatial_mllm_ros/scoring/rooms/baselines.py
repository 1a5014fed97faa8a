"""What a checkpoint is compared with: itself and others with an ablated visual input.

An ablation differs from the checkpoint as the node runs it in its visual tokens or in its weights. Prompt, positions
and generation are the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.prefill.prefix_build import VisualTokens
from spatial_mllm_ros.models.spatial_mllm.preparation import PATCH_PX
from spatial_mllm_ros.models.spatial_mllm.true_points import point_tokens
from spatial_mllm_ros.rooms.clips import Clip
from spatial_mllm_ros.rooms.points import patch_points, points_in_first_camera
from spatial_mllm_ros.scene_questions.scene_question import SceneQuestion

_KEPT = 12  # encoded clips: those of a group of rooms, and the choices of frames of one of them


@dataclass(frozen=True, eq=False)
class SeenClip:
    """The frames of a clip that are shown when a question is asked, with their truth.

    Attributes:
        clip: all its frames, with depth, instances, poses, cameras and annotation.
        indices: the frames that are seen, in time order.
        other: a clip of another room with as many frames; None where there is none.
    """

    clip: Clip
    indices: tuple[int, ...]
    other: SeenClip | None = None


class EncodedClips:
    """The visual tokens of clips, made as in the node; the latest are kept, since several ablations use them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], VisualTokens] = OrderedDict()

    def tokens(self, model: SpatialMllmAnswerModel, seen: SeenClip) -> VisualTokens:
        """What ``model`` is shown of the frames.

        Raises:
            SpatialMllmError: the frames cannot be read.
        """
        name = seen.clip.annotation.name
        key = (model.identity.sha256, name, seen.indices)
        if key not in self._kept:
            images = [seen.clip.rgb[index].cpu().numpy() for index in seen.indices]
            self._kept[key] = model.visual_tokens(images, [(name, index) for index in seen.indices])
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


#: Makes the visual tokens [n, D] that stand in the place of the clip's own.
MakeTokens = Callable[[EncodedClips, SpatialMllmAnswerModel, SeenClip], torch.Tensor]


def full_tokens(encoded: EncodedClips, model: SpatialMllmAnswerModel, seen: SeenClip) -> torch.Tensor:
    """Both encoders, as the node."""
    return encoded.tokens(model, seen).fused


def tokens_without_spatial(encoded: EncodedClips, model: SpatialMllmAnswerModel, seen: SeenClip) -> torch.Tensor:
    """Qwen's own visual tokens; what the connector adds is left out."""
    return encoded.tokens(model, seen).plain


def tokens_of_other_room(encoded: EncodedClips, model: SpatialMllmAnswerModel, seen: SeenClip) -> torch.Tensor:
    """Both encoders, on a clip of another room.

    Raises:
        ConfigurationError: there is no other clip.
    """
    if seen.other is None:
        raise ConfigurationError("There is no other room to show; evaluate at least two.")
    return encoded.tokens(model, seen.other).fused


def zero_tokens(encoded: EncodedClips, model: SpatialMllmAnswerModel, seen: SeenClip) -> torch.Tensor:
    """Zeros."""
    return torch.zeros_like(encoded.tokens(model, seen).plain)


@torch.inference_mode()
def tokens_of_true_points(encoded: EncodedClips, model: SpatialMllmAnswerModel, seen: SeenClip) -> torch.Tensor:
    """The connector reads the true points in place of the encoder's tokens; for checkpoints that were trained so.

    Raises:
        ConfigurationError: the clip has another size than the checkpoint's frames.
    """
    own = encoded.tokens(model, seen)
    fused = model.loaded.model.model
    weight = next(fused.connector.parameters())
    points = point_tokens(true_patch_points(seen, own.grid_thw), 2 * fused.spatial_encoder.config.embed_dim)
    added: torch.Tensor = fused.connector(points.to(weight.device, weight.dtype), own.grid_thw[1:])
    return own.plain + added.to(own.plain.device, own.plain.dtype)


def true_patch_points(seen: SeenClip, grid_thw: tuple[int, int, int]) -> torch.Tensor:
    """Mean point of each patch, float32 [S, h * w, 3], metres, in the first frame's camera; NaN where there is none.

    Args:
        grid_thw: frame pairs, rows and columns of patches that the checkpoint makes of the frames.

    Raises:
        ConfigurationError: the clip has another size than this grid.
    """
    clip, pairs, size = seen.clip, grid_thw[0], (grid_thw[1] * PATCH_PX, grid_thw[2] * PATCH_PX)
    if tuple(clip.depth_m.shape[1:]) != size:
        raise ConfigurationError(
            f"True points need clips of the size that the checkpoint sees, {size[1]}x{size[0]} pixels, not "
            f"{clip.depth_m.shape[2]}x{clip.depth_m.shape[1]}; evaluate with --size {size[1]}x{size[0]}."
        )
    chosen = list(seen.indices)
    points = points_in_first_camera(clip.depth_m[chosen], clip.scene_from_cam[chosen], clip.intrinsics)
    points = patch_points(points, PATCH_PX)
    missing = 2 * pairs - len(points)  # an odd number of frames is made even
    return torch.cat([points, points[len(points) - missing :]])


@dataclass(frozen=True)
class VisualInput:
    """What a model is shown, for ``--also NAME=DIR:INPUT``.

    Attributes:
        tokens: makes the visual tokens.
        sees_room: whether an answer can follow from the room; False: the score needs no view of the room.
        meaning: for the reader of the table.
    """

    tokens: MakeTokens
    sees_room: bool
    meaning: str


#: All visual inputs by name; a further ablation is a further entry.
VISUAL_INPUTS = {
    "full": VisualInput(full_tokens, True, "both encoders, as the node runs it"),
    "no-spatial": VisualInput(tokens_without_spatial, True, "the spatial branch adds zeros (connector output)"),
    "true-points": VisualInput(tokens_of_true_points, True, "the true points in place of the encoder's tokens"),
    "no-vision": VisualInput(zero_tokens, False, "every visual token is zero; prompt and positions stay as they are"),
    "other-room": VisualInput(tokens_of_other_room, False, "shown the frames of another room"),
}


@dataclass(frozen=True, eq=False)
class Ablation:
    """A checkpoint with one of the visual inputs.

    Attributes:
        name: of its column in the table.
        encoded: shared by the ablations of a run.
    """

    name: str
    model: SpatialMllmAnswerModel
    visual_input: VisualInput
    encoded: EncodedClips

    def answers(self, seen: SeenClip, questions: Sequence[SceneQuestion]) -> list[str]:
        """One text per question; the prompts are those of the node.

        Raises:
            SpatialMllmError: the clip or a question cannot be used.
            ModelOutOfMemoryError: the device's memory does not hold the clip or an answer.
        """
        tokens = self.visual_input.tokens(self.encoded, self.model, seen)
        context = self.model.context_of(tokens, self.encoded.tokens(self.model, seen).grid_thw)
        prompts = [self.model.prompt_of(question.question) for question in questions]
        return [generation.text for generation in self.model.generate_all(prompts, context)]
