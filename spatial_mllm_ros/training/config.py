"""What can be set of a training run; `config_cli` makes the command line of it. No torch here: `--help` stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scene_questions.scene_question import QuestionType

#: The parts of a Spatial-MLLM that can be trained. VGGT's heads do not take part in answering.
PARTS = ("connector", "merger", "language", "vision", "spatial")
#: What the paper trains: both vision encoders stay as they are (arXiv 2505.23747, section 4.2).
PAPER_PARTS = ("connector", "merger", "language")


def _check(owner: object, name: str, valid: bool, allowed: str) -> None:
    if not valid:
        kind, value = type(owner).__name__, getattr(owner, name)
        raise ConfigurationError(f"{kind}.{name} is {value!r}; it must be {allowed}.")


@dataclass(frozen=True)
class RunConfig:
    """How long, where, and how it is written down.

    Attributes:
        out: folder of the run: configuration, losses, states, the finished checkpoint.
        resume: go on with the run in that folder, exactly where its last state was written.
        epochs: passes over the data; ignored where steps are given.
        steps: optimiser steps; 0 counts them from the epochs.
        batch_size: samples per device and forward pass.
        accumulate: forward passes per optimiser step.
        seed: of the order of the data and of everything random.
        device: auto takes CUDA where there is one.
        precision: bf16 keeps the trained weights in float32 and computes in bfloat16; auto is bf16 on CUDA only.
        threads: CPU threads; 0 leaves torch's default.
        save_every: optimiser steps between states to resume from; 0 writes one at the end only.
        keep_states: how many of them are kept.
        save_dtype: of the finished checkpoint; source keeps that of the checkpoint it started from.
    """

    out: Path
    resume: bool = False
    epochs: float = 1.0
    steps: int = 0
    batch_size: int = 1
    accumulate: int = 8
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    threads: int = 0
    save_every: int = 200
    keep_states: int = 2
    save_dtype: Literal["source", "float32", "float16", "bfloat16"] = "source"

    def __post_init__(self) -> None:
        _check(self, "epochs", self.epochs > 0, "above 0")
        for name in ("steps", "threads", "save_every", "seed"):
            _check(self, name, getattr(self, name) >= 0, "0 or above")
        for name in ("batch_size", "accumulate", "keep_states"):
            _check(self, name, getattr(self, name) >= 1, "at least 1")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, or Muon for hidden matrices and AdamW for the rest, with a linear warm-up and a cosine to the end.

    Attributes:
        matrices: what steps the matrices between layers. ``muon`` (Jordan et al. 2024, with the step sizes of Liu et
            al., arXiv 2502.16982: rates mean about what they mean to AdamW) needs whole matrices: no DeepSpeed or FSDP.
        muon_factor: Muon's rates over those of AdamW.
        weight_decay: on matrices; norms, biases and single tokens have none.
        beta1, beta2: of AdamW.
        clip: largest norm of the whole gradient; 0 does not clip.
        warm_up: share of the steps in which the rates rise.
        final_factor: what the rates end at, over their peak.
    """

    matrices: Literal["adamw", "muon"] = "adamw"
    muon_factor: float = 1.0
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 1.0
    warm_up: float = 0.03
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("weight_decay", "clip"):
            _check(self, name, getattr(self, name) >= 0, "0 or above")
        for name in ("beta1", "beta2", "warm_up"):
            _check(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        _check(self, "muon_factor", self.muon_factor > 0, "above 0")
        _check(self, "final_factor", 0 <= self.final_factor <= 1, "in [0, 1]")


@dataclass(frozen=True)
class PartRates:
    """Peak learning rates per part; the defaults are those of v1.1's training.

    Attributes:
        connector: of the layers between spatial encoder and language model.
        merger: of the last layers of Qwen's vision encoder.
        language: of the language model.
        vision: of the rest of Qwen's vision encoder, where it is trained.
        spatial: of VGGT's aggregator, where it is trained.
    """

    connector: float = 2e-5
    merger: float = 2e-5
    language: float = 7e-6
    vision: float = 7e-6
    spatial: float = 7e-6

    def __post_init__(self) -> None:
        for name in PARTS:
            _check(self, name, getattr(self, name) > 0, "above 0")


@dataclass(frozen=True)
class SftModelConfig:
    """What is trained.

    Attributes:
        checkpoint: folder of the Spatial-MLLM to start from.
        trained: its parts that change; the others are frozen. The word all means every part.
        gradient_checkpointing: compute the activations of Qwen's layers again in the backward pass, to save memory.
        spatial_encoder: folder of a VGGT or Spatial-MLLM whose VGGT takes the place of the checkpoint's; none keeps it.
        spatial: what the connector reads: the encoder's tokens, or the true points in their place (rooms only).
        token_truth: weight of naming what each visual token shows, and where it is, beside the answers (rooms only);
            0 leaves it out.
        token_rms: root mean square that visual tokens have at the start: the last layers of merger and connector are
            scaled once (rooms only). Readings do not mind how large tokens are, so they grow while only these are
            learned; the language model's layers can then add nothing that counts to them. 0 leaves them.
        mention_truth: weight of saying at the name of a thing how many there are, where, and when they are first seen,
            and where a number is to be answered its logarithm (rooms only); 0 leaves it out.
        attention_truth: weight of what heads of the language model look at: from the name of a thing at the tokens that
            show it, from an answer at the name that it follows from (rooms only); 0 leaves it out.
        zeroed: share of the videos that are shown without what the connector adds.
        blind: share of the videos whose visual tokens are all zero.
    """

    checkpoint: Path
    trained: tuple[str, ...] = PAPER_PARTS
    gradient_checkpointing: bool = False
    spatial_encoder: Path | None = None
    spatial: Literal["encoder", "true_points"] = "encoder"
    token_truth: float = 0.0
    token_rms: float = 0.0
    mention_truth: float = 0.0
    attention_truth: float = 0.0
    zeroed: float = 0.0
    blind: float = 0.0

    def __post_init__(self) -> None:
        if self.trained == ("all",):
            object.__setattr__(self, "trained", PARTS)
        known = bool(self.trained) and set(self.trained) <= set(PARTS)
        _check(self, "trained", known, f"'all' or some of {', '.join(PARTS)}")
        for name in ("token_truth", "token_rms", "mention_truth", "attention_truth"):
            _check(self, name, getattr(self, name) >= 0, "0 or above")
        _check(self, "zeroed", 0 <= self.zeroed <= 1, "in [0, 1]")
        _check(self, "blind", 0 <= self.blind <= 1 - self.zeroed, "in [0, 1 - zeroed]")


@dataclass(frozen=True)
class SftDataConfig:
    """Questions and answers about videos and images.

    Attributes:
        files: jsonl files whose lines have video or image, and conversations of from (human, gpt) and value; none:
            generated rooms, new ones in every step.
        media_root: folder that relative media paths start at; none means the folder of each file.
        rooms_frames: frames of a clip of a room, even numbers, one for each batch in turn.
        rooms_questions: most questions per type about a room, answers balanced; 0: none.
        rooms_types: types of these questions; none: all. What is learned of a few types first is not drowned by the
            others' wrong answers.
        rooms_describe: also ask for a list of everything that the clip shows.
        rooms_pool: so many rooms are rendered once, with as many frames as the longest of ``rooms_frames``, and rows
            without dialogues are cut from them: run.batch_size rows of the longest, or more of fewer frames. 0: every
            row is a new room.
        frames: of a video in a file that the model sees, spread evenly.
        max_tokens: a sample longer than this is left out and reported.
        questions_per_video: up to so many lines about one video share its visual tokens in one forward pass. Each
            question sees the video and itself only, so the losses are those of the lines by themselves.
        workers: threads that read and prepare the next step's media; 0 reads when it is needed.
    """

    files: tuple[Path, ...] = ()
    media_root: Path | None = None
    rooms_frames: tuple[int, ...] = (8, 16)
    rooms_questions: int = 1
    rooms_types: tuple[str, ...] = ()
    rooms_describe: bool = True
    rooms_pool: int = 0
    frames: int = 16
    max_tokens: int = 8192
    questions_per_video: int = 1
    workers: int = 2

    def __post_init__(self) -> None:
        even = bool(self.rooms_frames) and all(count >= 2 and count % 2 == 0 for count in self.rooms_frames)
        _check(self, "rooms_frames", even, "one or more even numbers, each 2 or above")
        _check(self, "rooms_questions", self.rooms_questions >= 0, "0 or above")
        kinds = [kind.value for kind in QuestionType]
        _check(self, "rooms_types", set(self.rooms_types) <= set(kinds), f"empty or some of {', '.join(kinds)}")
        _check(self, "rooms_pool", self.rooms_pool >= 0, "0 or above")
        for name in ("frames", "max_tokens", "questions_per_video"):
            _check(self, name, getattr(self, name) >= 1, "at least 1")
        _check(self, "workers", self.workers >= 0, "0 or above")


@dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning on conversations."""

    model: SftModelConfig
    run: RunConfig
    data: SftDataConfig = field(default_factory=SftDataConfig)
    rates: PartRates = field(default_factory=PartRates)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        model, data = self.model, self.data
        of_rooms = (model.token_truth, model.token_rms, model.mention_truth, model.attention_truth)
        if data.files and (model.spatial == "true_points" or any(of_rooms)):
            raise ConfigurationError(
                "True points and the truth of tokens, mentions and attention are known of generated rooms only; leave "
                "data.files empty, or set model.spatial to encoder, model.token_truth, token_rms, mention_truth and "
                "attention_truth to 0."
            )
        if data.rooms_pool and (data.files or data.rooms_questions or data.rooms_describe):
            raise ConfigurationError(
                "Rows cut from a pool of rooms have no dialogues; set data.rooms_pool to 0, or data.rooms_questions to "
                "0 and data.rooms_describe to False, without data.files."
            )
        if not (data.files or data.rooms_questions or data.rooms_describe or model.token_truth):
            raise ConfigurationError(
                "There is nothing to learn: ask about rooms (data.rooms_questions above 0, or data.rooms_describe), or "
                "set model.token_truth above 0."
            )
        if (model.mention_truth or model.attention_truth) and not (data.rooms_questions or data.rooms_describe):
            raise ConfigurationError(
                "model.mention_truth and attention_truth are learned where questions are asked; set "
                "data.rooms_questions above 0, or both to 0."
            )


@dataclass(frozen=True)
class GeometryModelConfig:
    """What is trained.

    Attributes:
        checkpoint: folder of a VGGT or of a Spatial-MLLM, whose VGGT is trained and whose rest is kept.
        learning_rate: peak, of everything that is trained.
        trained: all of VGGT, or its heads alone, which leaves what the language model reads as it is.
    """

    checkpoint: Path
    learning_rate: float = 2e-4
    trained: Literal["all", "heads"] = "all"

    def __post_init__(self) -> None:
        _check(self, "learning_rate", self.learning_rate > 0, "above 0")


@dataclass(frozen=True)
class GeometryDataConfig:
    """Recordings with depth and poses, or the generated rooms.

    Attributes:
        recordings: RGB-D folders; none: generated rooms, new ones in every batch.
        rooms_rates_hz: frames per second of clips of rooms, taken in turn; they begin anywhere in a walk. 0 spreads the
            frames over the whole walk.
        rooms_pieces: the frames of a room are cut into so many samples, each from elsewhere in it, taken in turn:
            samples of fewer frames show more places for the same work.
        frames: per sample; the first one is the reference.
        longest_step: most recorded frames between two frames of a sample.
        width_px: of the images as VGGT sees them, a multiple of 14; the height keeps the aspect.
        held_out: share of the end of every recording that is measured on instead of trained on.
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
        _check(self, "rooms_rates_hz", rates_known, "one or more numbers, each 0 or above")
        _check(self, "frames", self.frames >= 2, "at least 2")
        divide = bool(self.rooms_pieces) and all(n >= 1 and self.frames % n == 0 for n in self.rooms_pieces)
        _check(self, "rooms_pieces", divide or bool(self.recordings), f"numbers that divide frames ({self.frames})")
        _check(self, "longest_step", self.longest_step >= 1, "at least 1")
        _check(self, "width_px", self.width_px >= 14 and self.width_px % 14 == 0, "a multiple of 14")
        _check(self, "held_out", 0 <= self.held_out < 1, "in [0, 1)")


@dataclass(frozen=True)
class GeometryLossConfig:
    """The loss of VGGT (arXiv 2503.11651, section 3.3) with its weights.

    Attributes:
        scale: metric divides all lengths by unit_m, so that the model learns metres; normalised divides each sample by
            the mean distance of its points from the first camera, as the published model was trained.
        unit_m: length that the model calls 1, where the scale is metric.
        camera, depth, points: weights of the three losses; a head of weight 0 is not run and learns nothing.
        gradient: weight of the differences between neighbouring pixels, in the losses of depth and points.
        confidence: weight of the logarithm that keeps confidences from sinking to their lowest value.
        refinement_decay: weight of a camera refinement step over that of the next one.
        huber: error of a camera number at which its loss goes from squared to linear.
        measure_every: optimiser steps between measurements on held-out samples; 0 measures at the end only.
        measure_samples: how many held-out samples a measurement takes.
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
            _check(self, name, getattr(self, name) >= 0, "0 or above")
        for name in ("unit_m", "huber", "refinement_decay"):
            _check(self, name, getattr(self, name) > 0, "above 0")
        _check(self, "measure_samples", self.measure_samples >= 1, "at least 1")
        _check(self, "camera", self.camera + self.depth + self.points > 0, "above 0 where depth and points are 0")


@dataclass(frozen=True)
class GeometryConfig:
    """Training of VGGT on exact depth, points and poses."""

    model: GeometryModelConfig
    run: RunConfig
    data: GeometryDataConfig = field(default_factory=GeometryDataConfig)
    loss: GeometryLossConfig = field(default_factory=GeometryLossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
