"""What is compared: a checkpoint, and what it is given to look at.

An arm differs from the first one in its visual tokens or in its weights, and in nothing else: the prompt, the positions
and the way of answering are the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from spatial_mllm_ros.answering.wording import benchmark_wording
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import PATCH_PX, PreparedVideo, prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import user_text
from spatial_mllm_ros.models.spatial_mllm.true_points import point_tokens
from spatial_mllm_ros.rooms.clips import Clip
from spatial_mllm_ros.rooms.points import patch_points, points_in_first_camera
from spatial_mllm_ros.scene_questions.scene_question import SceneQuestion
from spatial_mllm_ros.scoring.rooms.shared_prefix import shared_prefix_answers

_KEPT = 12  # looks: the clips of a group with the choices of frames of one of them


@dataclass(frozen=True, eq=False)
class SeenClip:
    """What may be looked at when a question is answered: frames of a clip, with everything that is true of them.

    Attributes:
        clip: all its frames, with depth, instances, poses, cameras and annotation.
        indices: the frames that are seen, in time order.
        other: a clip of another room with as many frames; None where there is none at hand.
    """

    clip: Clip
    indices: tuple[int, ...]
    other: SeenClip | None = None

    def prepared(self, loaded: LoadedSpatialMllm) -> PreparedVideo:
        """The frames as the checkpoint takes them; an odd number is made even by repeating the last."""
        return prepare_video([self.clip.rgb[n].cpu().numpy() for n in self.indices], loaded.budget)


#: Checkpoint, clip and the clip's prepared frames -> visual tokens [tokens, D], one per placeholder of the prompt.
VisualTokens = Callable[[LoadedSpatialMllm, SeenClip, PreparedVideo], torch.Tensor]


class FullTokens:
    """As the node: both encoders. The latest results are kept: several arms look at the same frames."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], torch.Tensor] = OrderedDict()

    def __call__(
        self, loaded: LoadedSpatialMllm, seen: SeenClip, prepared: PreparedVideo | None = None
    ) -> torch.Tensor:
        """See VisualTokens; ``prepared`` may be left out."""
        key = (loaded.identity.sha256, seen.clip.annotation.name, seen.indices)
        if key not in self._kept:
            self._kept[key] = loaded.model.visual_embeddings(prepared or seen.prepared(loaded))
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def of_other_room(self, loaded: LoadedSpatialMllm, seen: SeenClip, prepared: PreparedVideo) -> torch.Tensor:
        """Both encoders, on a clip that has nothing to do with the question.

        Raises:
            ConfigurationError: there is no other clip.
        """
        if seen.other is None:
            raise ConfigurationError("There is no other room to show; evaluate at least two.")
        return self(loaded, seen.other)


def tokens_without_space(loaded: LoadedSpatialMllm, _seen: SeenClip, prepared: PreparedVideo) -> torch.Tensor:
    """What the connector adds is left out; Qwen's own visual tokens remain."""
    return loaded.model.model.plain_visual_tokens(prepared.pixel_values_videos, prepared.video_grid_thw)


def tokens_of_true_points(loaded: LoadedSpatialMllm, seen: SeenClip, prepared: PreparedVideo) -> torch.Tensor:
    """The connector reads the true points in place of the encoder's tokens; for checkpoints that were trained so.

    Raises:
        ConfigurationError: the clip has another size than the checkpoint sees it in.
    """
    fused = loaded.model.model
    points = true_patch_points(seen, prepared)
    weight = next(fused.connector.parameters())
    read = point_tokens(points, 2 * fused.spatial_encoder.config.embed_dim).to(weight.device, weight.dtype)
    added = fused.connector(read, (prepared.height_px // PATCH_PX, prepared.width_px // PATCH_PX))
    tokens = tokens_without_space(loaded, seen, prepared)
    return tokens + added.to(tokens.device, tokens.dtype)


def true_patch_points(seen: SeenClip, prepared: PreparedVideo) -> torch.Tensor:
    """Mean point of each patch, float32 [S, h * w, 3], metres, in the first frame's camera; NaN where there is none.

    Raises:
        ConfigurationError: the clip has another size than the prepared frames.
    """
    clip, size = seen.clip, (prepared.height_px, prepared.width_px)
    if tuple(clip.depth_m.shape[1:]) != size:
        raise ConfigurationError(
            f"True points need clips of the size that the checkpoint sees, {size[1]}x{size[0]} pixels, not "
            f"{clip.depth_m.shape[2]}x{clip.depth_m.shape[1]}; evaluate with --size {size[1]}x{size[0]}."
        )
    chosen = list(seen.indices)
    points = points_in_first_camera(clip.depth_m[chosen], clip.scene_from_cam[chosen], clip.intrinsics)
    points = patch_points(points, PATCH_PX)
    missing = len(prepared.spatial_images) - len(points)  # an odd number of frames is made even
    return torch.cat([points, points[len(points) - missing :]])


def zero_tokens(loaded: LoadedSpatialMllm, _seen: SeenClip, prepared: PreparedVideo) -> torch.Tensor:
    """Zeros."""
    weight = loaded.model.get_input_embeddings().weight
    return weight.new_zeros(prepared.token_count, weight.shape[1])


@dataclass(frozen=True)
class View:
    """A way of looking, for ``--also NAME=DIR:VIEW``.

    Attributes:
        tokens: makes the visual tokens.
        looks: whether the answer can follow from the room; False: whatever it scores is guessing.
        meaning: for the reader of the table.
    """

    tokens: VisualTokens
    looks: bool
    meaning: str


def all_views() -> dict[str, View]:
    """All ways of looking by name; one more arm is one more entry here."""
    full = FullTokens()
    return {
        "full": View(full, True, "both encoders, as the node runs it"),
        "no-spatial": View(tokens_without_space, True, "the spatial branch adds zeros (connector output)"),
        "true-points": View(tokens_of_true_points, True, "the true points in place of the encoder's tokens"),
        "blind": View(zero_tokens, False, "every visual token is zero; prompt and positions stay as they are"),
        "other-room": View(full.of_other_room, False, "shown the frames of another room"),
    }


VIEW_NAMES = tuple(all_views())


class Arm(Protocol):
    """Something that answers questions about clips."""

    @property
    def name(self) -> str:
        """Of its column."""
        ...

    @property
    def meaning(self) -> str:
        """For the reader of the table."""
        ...

    @property
    def looks(self) -> bool:
        """See View."""
        ...

    def answers(self, seen: SeenClip, questions: Sequence[SceneQuestion]) -> list[str]:
        """One text per question.

        Raises:
            SpatialMllmError: the clip or a question cannot be used.
        """
        ...


@dataclass(frozen=True, eq=False)
class ModelArm:
    """A checkpoint with a way of looking; see ``Arm``."""

    name: str
    loaded: LoadedSpatialMllm
    view: View
    max_new_tokens: int

    @property
    def meaning(self) -> str:
        """See View."""
        return self.view.meaning

    @property
    def looks(self) -> bool:
        """See View."""
        return self.view.looks

    @torch.inference_mode()
    def answers(self, seen: SeenClip, questions: Sequence[SceneQuestion]) -> list[str]:
        """See Arm; the prompts are those of the node."""
        prepared = seen.prepared(self.loaded)
        tokens = self.view.tokens(self.loaded, seen, prepared)
        prompts = [prompt_of(question, self.loaded) for question in questions]
        return shared_prefix_answers(self.loaded, prepared, tokens, prompts, max_new_tokens=self.max_new_tokens)


def prompt_of(question: SceneQuestion, loaded: LoadedSpatialMllm) -> str:
    """The user's text, as the node words it for the checkpoint."""
    asked = question.question
    return user_text(benchmark_wording(asked.text), asked.options, loaded.fusion, numeric=asked.form.is_number)
