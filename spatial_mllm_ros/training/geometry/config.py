"""The options of `train geometry`. The command line is made of them, so nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spatial_mllm_ros.training.config import OptimiserConfig, RunConfig, check_field


@dataclass(frozen=True)
class GeometryModelConfig:
    """What is trained.

    Attributes:
        checkpoint: folder of a VGGT, or of a Spatial-MLLM, whose VGGT is trained and whose rest is kept.
        learning_rate: peak learning rate of everything that is trained.
        trained: all of VGGT, or only its heads, so that what the language model reads does not change.
    """

    checkpoint: Path
    learning_rate: float = 2e-4
    trained: Literal["all", "heads"] = "all"

    def __post_init__(self) -> None:
        check_field(self, "learning_rate", self.learning_rate > 0, "above 0")


@dataclass(frozen=True)
class GeometryDataConfig:
    """Recordings with depth and poses, or the generated rooms.

    Attributes:
        recordings: RGB-D folders; without recordings: generated rooms, new ones in every batch.
        rooms_rates_hz: frames per second of clips of rooms, taken in turn; clips begin anywhere in a walk. 0 spreads
            the frames over the whole walk.
        rooms_pieces: into how many samples the frames of a room are cut, taken in turn; each sample is from another
            part of the walk, so samples of fewer frames show more places for the same work.
        frames: frames per sample; the first one is the reference.
        longest_step: most recorded frames between two frames of a sample.
        width_px: width of the images that VGGT sees, a multiple of 14; the height keeps the aspect.
        held_out: share of the end of every recording that is used for measurements and not for training.
    """

    recordings: tuple[Path, ...] = ()
    rooms_rates_hz: tuple[float, ...] = (8.0, 4.0)
    rooms_pieces: tuple[int, ...] = (1, 2, 4)
    frames: int = 8
    longest_step: int = 10
    width_px: int = 224
    held_out: float = 0.2

    def __post_init__(self) -> None:
        rates_known = bool(self.rooms_rates_hz) and all(rate >= 0 for rate in self.rooms_rates_hz)
        check_field(self, "rooms_rates_hz", rates_known, "one or more numbers, each 0 or above")
        check_field(self, "frames", self.frames >= 2, "at least 2")
        divide = bool(self.rooms_pieces) and all(n >= 1 and self.frames % n == 0 for n in self.rooms_pieces)
        check_field(
            self, "rooms_pieces", divide or bool(self.recordings), f"numbers that divide frames ({self.frames})"
        )
        check_field(self, "longest_step", self.longest_step >= 1, "at least 1")
        check_field(self, "width_px", self.width_px >= 14 and self.width_px % 14 == 0, "a multiple of 14")
        check_field(self, "held_out", 0 <= self.held_out < 1, "in [0, 1)")


@dataclass(frozen=True)
class GeometryLossConfig:
    """The loss of VGGT (arXiv 2503.11651, section 3.3) with its weights.

    Attributes:
        scale: metric divides all lengths by unit_m, so that the model learns metres; normalised divides each sample by
            the mean distance of its points from the first camera, as the published model was trained.
        unit_m: length that the model calls 1, if the scale is metric.
        camera: weight of the camera loss; with 0 the camera head is not run and learns nothing.
        depth: weight of the depth loss; with 0 the depth head is not run and learns nothing.
        points: weight of the loss of points; with 0 the point head is not run and learns nothing.
        gradient: weight of the differences between neighbouring pixels, in the losses of depth and points.
        confidence: weight of the logarithm that keeps confidences from sinking to their lowest value.
        refinement_decay: weight of a camera refinement step divided by that of the next one.
        huber: error of a camera number at which its loss changes from squared to linear.
        measure_every: optimiser steps between measurements on held-out samples; 0 measures at the end only.
        measure_samples: held-out samples per measurement.
    """

    scale: Literal["metric", "normalised"] = "metric"
    unit_m: float = 1.0
    camera: float = 5.0
    depth: float = 1.0
    points: float = 1.0
    gradient: float = 1.0
    confidence: float = 0.2
    refinement_decay: float = 0.6
    huber: float = 0.1
    measure_every: int = 200
    measure_samples: int = 16

    def __post_init__(self) -> None:
        for name in ("camera", "depth", "points", "gradient", "confidence", "measure_every"):
            check_field(self, name, getattr(self, name) >= 0, "0 or above")
        for name in ("unit_m", "huber", "refinement_decay"):
            check_field(self, name, getattr(self, name) > 0, "above 0")
        check_field(self, "measure_samples", self.measure_samples >= 1, "at least 1")
        all_zero = self.camera + self.depth + self.points == 0
        check_field(self, "camera", not all_zero, "above 0 if depth and points are 0")


@dataclass(frozen=True)
class GeometryConfig:
    """Trains VGGT on exact depth, points and poses, of RGB-D recordings or of generated rooms."""

    model: GeometryModelConfig
    run: RunConfig
    data: GeometryDataConfig = field(default_factory=GeometryDataConfig)
    loss: GeometryLossConfig = field(default_factory=GeometryLossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
