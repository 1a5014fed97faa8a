"""The options of `train sft`. The command line is made of them, so nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scene_questions.scene_question import QuestionType
from spatial_mllm_ros.training.config import OptimiserConfig, RunConfig, check_field

#: The parts of a Spatial-MLLM that can be trained. VGGT's heads do not take part in answering.
PARTS = ("connector", "merger", "language", "vision", "spatial")
#: What the paper trains: both vision encoders stay frozen (arXiv 2505.23747, section 4.2).
PAPER_PARTS = ("connector", "merger", "language")


@dataclass(frozen=True)
class PartRates:
    """Peak learning rates per part; the defaults are those of v1.1's training.

    Attributes:
        connector: rate of the layers between spatial encoder and language model.
        merger: rate of the last layers of Qwen's vision encoder.
        language: rate of the language model.
        vision: rate of the rest of Qwen's vision encoder, if it is trained.
        spatial: rate of VGGT's aggregator, if it is trained.
    """

    connector: float = 2e-5
    merger: float = 2e-5
    language: float = 7e-6
    vision: float = 7e-6
    spatial: float = 7e-6

    def __post_init__(self) -> None:
        for name in PARTS:
            check_field(self, name, getattr(self, name) > 0, "above 0")


@dataclass(frozen=True)
class SftModelConfig:
    """What is trained, and on what beside the answers.

    Attributes:
        checkpoint: folder of the Spatial-MLLM to start from.
        trained: its parts that change; the others are frozen. The word all means every part.
        gradient_checkpointing: compute the activations of Qwen's layers again in the backward pass, to save memory.
        spatial_encoder: folder of a VGGT or Spatial-MLLM whose VGGT replaces that of the checkpoint; None keeps it.
        spatial: what the connector reads: the encoder's tokens, or the true points instead of them (rooms only).
        token_supervision: weight of naming what each visual token shows and where that is (rooms only); 0 turns it off.
        token_rms: root mean square of the visual tokens at the start: the last layers of merger and connector are
            scaled once (rooms only). The heads of token_supervision accept tokens of any size, so tokens grow while
            only the encoders are trained, and the language model's layers can then add nothing that matters beside
            them. 0 leaves the layers unscaled.
        mention_supervision: weight of reading at the name of a thing how many there are, where, and when they are first
            seen, and before a number that is the answer its logarithm (rooms only); 0 turns it off.
        attention_supervision: weight of where heads of the language model attend: from the name of a thing to the
            tokens that show it, from an answer to the name that it follows from (rooms only); 0 turns it off.
        zeroed: share of the videos that are shown without what the connector adds.
        blind: share of the videos whose visual tokens are all zero.
    """

    checkpoint: Path
    trained: tuple[str, ...] = PAPER_PARTS
    gradient_checkpointing: bool = False
    spatial_encoder: Path | None = None
    spatial: Literal["encoder", "true_points"] = "encoder"
    token_supervision: float = 0.0
    token_rms: float = 0.0
    mention_supervision: float = 0.0
    attention_supervision: float = 0.0
    zeroed: float = 0.0
    blind: float = 0.0

    def __post_init__(self) -> None:
        if self.trained == ("all",):
            object.__setattr__(self, "trained", PARTS)
        known = bool(self.trained) and set(self.trained) <= set(PARTS)
        check_field(self, "trained", known, f"'all' or some of {', '.join(PARTS)}")
        for name in ("token_supervision", "token_rms", "mention_supervision", "attention_supervision"):
            check_field(self, name, getattr(self, name) >= 0, "0 or above")
        check_field(self, "zeroed", 0 <= self.zeroed <= 1, "in [0, 1]")
        check_field(self, "blind", 0 <= self.blind <= 1 - self.zeroed, "in [0, 1 - zeroed]")


@dataclass(frozen=True)
class SftDataConfig:
    """Questions and answers about videos and images.

    Attributes:
        files: jsonl files whose lines have video or image, and conversations of from (human, gpt) and value; without
            files: generated rooms, new ones in every step.
        media_root: folder that relative media paths start at; None means the folder of each file.
        rooms_frames: frames of a clip of a room: even numbers, one for each batch in turn.
        rooms_questions: most questions per type about a room, with balanced answers; 0 asks none.
        rooms_types: types of these questions; without any, all types are asked. A run that starts with a few types
            learns them better, because the others' wrong answers do not dominate the loss.
        rooms_describe: also ask for a list of everything that the clip shows.
        rooms_pool: number of rooms that are rendered once, with as many frames as the longest of rooms_frames. Rows
            without dialogues are cut from them: run.batch_size rows of the longest, or more of fewer frames. With 0
            every row is a new room.
        frames: frames of a video from a file that the model sees, spread evenly.
        max_tokens: a longer sample is left out and reported.
        questions_per_video: most lines about one video that share its visual tokens in one forward pass. Each question
            sees only the video and itself, so the losses are the same as for single lines.
        workers: threads that read and prepare the next step's media; 0 reads media when they are needed.
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
        check_field(self, "rooms_frames", even, "one or more even numbers, each 2 or above")
        check_field(self, "rooms_questions", self.rooms_questions >= 0, "0 or above")
        kinds = [kind.value for kind in QuestionType]
        check_field(self, "rooms_types", set(self.rooms_types) <= set(kinds), f"empty or some of {', '.join(kinds)}")
        check_field(self, "rooms_pool", self.rooms_pool >= 0, "0 or above")
        for name in ("frames", "max_tokens", "questions_per_video"):
            check_field(self, name, getattr(self, name) >= 1, "at least 1")
        check_field(self, "workers", self.workers >= 0, "0 or above")


@dataclass(frozen=True)
class SftConfig:
    """Fine-tunes a Spatial-MLLM on questions and answers about videos, images or generated rooms."""

    model: SftModelConfig
    run: RunConfig
    data: SftDataConfig = field(default_factory=SftDataConfig)
    rates: PartRates = field(default_factory=PartRates)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        model, data = self.model, self.data
        of_rooms = (model.token_supervision, model.token_rms, model.mention_supervision, model.attention_supervision)
        if data.files and (model.spatial == "true_points" or any(of_rooms)):
            raise ConfigurationError(
                "True points and the targets of supervision are known of generated rooms only; leave data.files empty, "
                "or set model.spatial to encoder and model.token_supervision, token_rms, mention_supervision and "
                "attention_supervision to 0."
            )
        if data.rooms_pool and (data.files or data.rooms_questions or data.rooms_describe):
            raise ConfigurationError(
                "Rows cut from a pool of rooms have no dialogues; set data.rooms_pool to 0, or data.rooms_questions to "
                "0 and data.rooms_describe to False, without data.files."
            )
        if not (data.files or data.rooms_questions or data.rooms_describe or model.token_supervision):
            raise ConfigurationError(
                "There is nothing to learn: ask about rooms (data.rooms_questions above 0, or data.rooms_describe), or "
                "set model.token_supervision above 0."
            )
        if (model.mention_supervision or model.attention_supervision) and not (
            data.rooms_questions or data.rooms_describe
        ):
            raise ConfigurationError(
                "model.mention_supervision and attention_supervision need questions; set data.rooms_questions above 0, "
                "or both to 0."
            )
