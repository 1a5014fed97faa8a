"""What an exported model computes, for which images, in which precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.vggt import VggtOutput

INPUT_NAME = "images"
#: The tensors of an export, per output of VGGT: names of ``VggtPrediction``'s attributes.
TENSORS_OF: Mapping[VggtOutput, tuple[str, ...]] = {
    VggtOutput.POSE: ("pose_encoding",),
    VggtOutput.DEPTH: ("depth", "depth_confidence"),
    VggtOutput.POINTS: ("points_world", "points_confidence"),
    VggtOutput.LAST_LAYER: ("last_layer",),
}
MAX_FRAMES = 128


class ProfileKind(str, Enum):
    """Which of the encoder's two jobs an export is for."""

    GEOMETRY = "geometry"  #: cameras, depth and confidence of a window of frames
    FUSION = "fusion"  #: the last aggregator layer of the evidence set, for the language model


class Precision(str, Enum):
    """Precision of matrix products and attention; normalisation, rotation, residual and heads are always float32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


_DEFAULT_OUTPUTS = {
    ProfileKind.GEOMETRY: (VggtOutput.POSE, VggtOutput.DEPTH),
    ProfileKind.FUSION: (VggtOutput.LAST_LAYER,),
}


@dataclass(frozen=True)
class EngineProfile:
    """One export: fixed image size, a range of frame counts.

    VGGT's position tables depend on the grid of patches, so the size is fixed; the number of frames is dynamic unless
    least and most are the same. A single frame needs an export of its own (1 to 1): exporters specialise on 1.

    Attributes:
        width_px, height_px: of the images, multiples of 14.
        min_frames, best_frames, max_frames: S; engines are tuned for ``best_frames``.
        outputs: what is computed; () stands for the usual ones of the kind.
    """

    kind: ProfileKind
    width_px: int
    height_px: int
    min_frames: int
    best_frames: int
    max_frames: int
    precision: Precision = Precision.FP32
    outputs: tuple[VggtOutput, ...] = ()

    def __post_init__(self) -> None:
        for name, kind in (("kind", ProfileKind), ("precision", Precision)):
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except ValueError:
                choices = ", ".join(member.value for member in kind)
                raise ConfigurationError(
                    f"EngineProfile.{name} is {getattr(self, name)!r}; it must be one of {choices}."
                ) from None
        try:
            wanted = [VggtOutput(output) for output in self.outputs or _DEFAULT_OUTPUTS[self.kind]]
        except ValueError:
            raise ConfigurationError(
                f"EngineProfile.outputs is {self.outputs!r}; name some of {', '.join(o.value for o in VggtOutput)}."
            ) from None
        object.__setattr__(self, "outputs", tuple(output for output in VggtOutput if output in wanted))
        for name in ("width_px", "height_px"):
            side = getattr(self, name)
            if not isinstance(side, int) or side < 14 or side % 14:
                raise ConfigurationError(f"EngineProfile.{name} is {side!r}; it must be a multiple of 14, such as 518.")
        least, best, most = self.min_frames, self.best_frames, self.max_frames
        if not 1 <= least <= best <= most <= MAX_FRAMES:
            raise ConfigurationError(
                f"EngineProfile has frames {least}, {best}, {most}; they must ascend within 1 to {MAX_FRAMES}."
            )
        if least == 1 and most > 1:
            raise ConfigurationError(
                f"EngineProfile has frames from 1 to {most}; a single frame needs a profile of its own (1 to 1), the "
                "others start at 2."
            )

    @property
    def name(self) -> str:
        """For files and logs, e.g. ``geometry-518x392-f2-8-bf16``."""
        frames = f"f{self.min_frames}-{self.max_frames}" if self.is_dynamic else f"f{self.max_frames}"
        usual = self.outputs == _DEFAULT_OUTPUTS[self.kind]
        what = self.kind.value if usual else "+".join((self.kind.value, *(output.value for output in self.outputs)))
        return f"{what}-{self.width_px}x{self.height_px}-{frames}-{self.precision.value}"

    @property
    def is_dynamic(self) -> bool:
        """Whether the number of frames may vary."""
        return self.min_frames != self.max_frames

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the output tensors, in the order of the graph."""
        return tuple(name for output in self.outputs for name in TENSORS_OF[output])

    def image_shape(self, frames: int) -> tuple[int, int, int, int, int]:
        """[1, S, 3, H, W]."""
        return (1, frames, 3, self.height_px, self.width_px)

    def refusal(self, image_shape: tuple[int, ...], outputs: Collection[VggtOutput]) -> str:
        """Why this profile takes no such request, as part of a sentence; "" when it does."""
        missing = [output.value for output in outputs if output not in self.outputs]
        if missing:
            return f"{self.name} does not compute {', '.join(sorted(missing))}"
        if len(image_shape) != 5 or image_shape[0] != 1 or image_shape[2:] != self.image_shape(1)[2:]:
            return f"{self.name} takes images of {list(self.image_shape(self.best_frames))}, not {list(image_shape)}"
        if not self.min_frames <= image_shape[1] <= self.max_frames:
            return f"{self.name} takes {self.min_frames} to {self.max_frames} frames, not {image_shape[1]}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """As an object of JSON."""
        return {
            "kind": self.kind.value,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "min_frames": self.min_frames,
            "best_frames": self.best_frames,
            "max_frames": self.max_frames,
            "precision": self.precision.value,
            "outputs": [output.value for output in self.outputs],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> EngineProfile:
        """Inverse of ``to_json``.

        Raises:
            ConfigurationError: a field is missing, unknown or out of range.
        """
        try:
            return cls(**{**content, "outputs": tuple(content.get("outputs", ()))})
        except TypeError as error:
            raise ConfigurationError(f"{dict(content)!r} is not an engine profile: {error}") from error
