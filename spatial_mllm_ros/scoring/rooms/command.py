"""The command `spatial_mllm evaluate rooms`: from its options to the tables."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spatial_mllm_ros.answering.setup import load_checkpoint
from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.scoring.rooms.baselines import VISUAL_INPUTS, Ablation, EncodedClips
from spatial_mllm_ros.scoring.rooms.results import RoomsReport
from spatial_mllm_ros.scoring.rooms.room_set import RoomSet, RoomSetConfig
from spatial_mllm_ros.scoring.rooms.run import Column, RoomsRun, answer_rooms
from spatial_mllm_ros.storage import write_json, write_text

_OWN_ABLATIONS = ("no-spatial", "no-vision", "other-room")
_BATCH_SIZE = 32  # questions about one clip that are answered together
_CAMERA_PX = 480, 640  # height, width of the camera that the default size is made for


@dataclass(frozen=True)
class OtherCheckpoint:
    """``NAME=DIR`` or ``NAME=DIR:INPUT``: a further column, another checkpoint or another visual input."""

    name: str
    folder: str
    visual_input: str = "full"

    @classmethod
    def parse(cls, text: str) -> OtherCheckpoint:
        """Reads the option.

        Raises:
            ConfigurationError: it is not of this form, or there is no such visual input.
        """
        name, equals, rest = text.partition("=")
        folder, colon, visual_input = rest.rpartition(":")
        if not (colon and "/" not in visual_input):
            folder, visual_input = rest, "full"
        if not (equals and name.strip() and folder):
            raise ConfigurationError(
                f"--also is {text!r}; write NAME=DIR or NAME=DIR:INPUT, for example again=run7:no-vision."
            )
        if visual_input not in VISUAL_INPUTS:
            raise ConfigurationError(
                f"--also is {text!r}; the visual input after the colon must be one of {', '.join(VISUAL_INPUTS)}."
            )
        return cls(name.strip(), folder, visual_input)


def run_rooms(
    checkpoint: str,
    config: RoomSetConfig,
    *,
    visual_input: str = "full",
    size: str = "",
    also: Sequence[str] = (),
    device: str = "auto",
    max_new_tokens: int = 16,
    json_path: Path | None = None,
    answers_path: Path | None = None,
) -> int:
    """Answers, scores, prints; returns the exit code.

    Args:
        checkpoint: folder; "" for the bundled one.
        config: its size is replaced by ``size`` (WxH) or, without one, by the size that the checkpoint's pixel budget
            gives an image of 640x480, as in the node.
        visual_input: name of what the first column is shown, see ``baselines.VISUAL_INPUTS``.
        also: see OtherCheckpoint.
        json_path: of the report; a checkpoint's own report is the file evaluation.json beside its weights.
        answers_path: of the answers, one JSON line per question with the text of every column.

    Raises:
        SpatialMllmError: a checkpoint, an option or a file cannot be used.
    """
    others = [OtherCheckpoint.parse(text) for text in also]
    for path in (json_path, answers_path):
        if path is not None and not path.parent.is_dir():
            raise ConfigurationError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    loaded, used_device = load_checkpoint(checkpoint, device)
    height_px, width_px = loaded.budget.size_px(*_CAMERA_PX) if not size else _size(size)
    config = replace(config, width_px=width_px, height_px=height_px)
    encoded, model = EncodedClips(), _answer_model(loaded, max_new_tokens)
    ablations = [Ablation(loaded.identity.name, model, VISUAL_INPUTS[visual_input], encoded)]
    ablations += [Ablation(own, model, VISUAL_INPUTS[own], encoded) for own in _OWN_ABLATIONS]
    for other in others:
        beside = _answer_model(load_checkpoint(other.folder, used_device)[0], max_new_tokens)
        ablations.append(Ablation(other.name, beside, VISUAL_INPUTS[other.visual_input], encoded))
    names = [ablation.name for ablation in ablations]
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"Two columns have the same name: {', '.join(names)}. Name those of --also differently."
        )
    started_s = time.monotonic()
    run = answer_rooms(RoomSet(config), ablations)
    if not run.answers.questions:
        raise ConfigurationError("No question was answered: every room was left out, the log says why.")
    described = [
        Column(
            ablation.name,
            ablation.visual_input.meaning,
            ablation.visual_input.sees_room,
            ablation.model.identity.name,
            ablation.model.identity.sha256,
        )
        for ablation in ablations
    ]
    settings = config.to_json() | {"max_new_tokens": max_new_tokens}
    seconds = time.monotonic() - started_s
    report = RoomsReport.of_run(
        run, described, settings, random_weights=loaded.identity.random_weights, seconds=seconds
    )
    if answers_path is not None:
        write_text(answers_path, "".join(f"{json.dumps(row)}\n" for row in _rows(run)))
    if json_path is not None:
        write_json(json_path, report.to_json())
    for line in report.lines():
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"\n{seconds:.0f} s on {used_device}.\n")
    return 1 if report.failed else 0


def _answer_model(loaded: LoadedSpatialMllm, max_new_tokens: int) -> SpatialMllmAnswerModel:
    return SpatialMllmAnswerModel(loaded, max_new_tokens=max_new_tokens, batch_size=_BATCH_SIZE)


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdigit() and height.isdigit()):
        raise ConfigurationError(f"--size is {text!r}; write it like 112x84.")
    return int(height), int(width)


def _rows(run: RoomsRun) -> list[dict[str, object]]:
    return [
        question.record(number) | {"set": name, "answers": dict(zip(answers.columns, texts, strict=True))}
        for name, answers in (("frames", run.answers), ("walk", run.walk))
        for number, (question, texts) in enumerate(zip(answers.questions, answers.texts, strict=True))
    ]
