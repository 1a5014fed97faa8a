"""The command `spatial_mllm evaluate rooms`: from its options to the tables."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spatial_mllm_ros.answering.setup import load_checkpoint
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scoring.rooms.baselines import VIEW_NAMES, ModelArm, all_views
from spatial_mllm_ros.scoring.rooms.results import RoomsReport
from spatial_mllm_ros.scoring.rooms.room_set import RoomSet, RoomSetConfig
from spatial_mllm_ros.scoring.rooms.run import ArmInfo, RoomsRun, answer_rooms
from spatial_mllm_ros.storage import write_json, write_text

_OWN_VIEWS = ("no-spatial", "blind", "other-room")
_CAMERA_PX = 480, 640  # height, width of the camera that the default size is made for


@dataclass(frozen=True)
class OtherCheckpoint:
    """``NAME=DIR`` or ``NAME=DIR:VIEW``: one more column, another checkpoint or another way of looking."""

    name: str
    folder: str
    view: str = "full"

    @classmethod
    def parse(cls, text: str) -> OtherCheckpoint:
        """Reads the option.

        Raises:
            ConfigurationError: it is not of this form, or there is no such view.
        """
        name, equals, rest = text.partition("=")
        folder, colon, view = rest.rpartition(":")
        if not (colon and "/" not in view):
            folder, view = rest, "full"
        if not (equals and name.strip() and folder):
            raise ConfigurationError(
                f"--also is {text!r}; write NAME=DIR or NAME=DIR:VIEW, e.g. trained-blind=run7:blind."
            )
        if view not in VIEW_NAMES:
            raise ConfigurationError(
                f"--also is {text!r}; the view after the colon must be one of {', '.join(VIEW_NAMES)}."
            )
        return cls(name.strip(), folder, view)


def run_rooms(
    checkpoint: str,
    config: RoomSetConfig,
    *,
    view: str = "full",
    size: str = "",
    also: Sequence[str] = (),
    device: str = "auto",
    max_new_tokens: int = 16,
    json_path: Path | None = None,
    answers_path: Path | None = None,
) -> int:
    """Answers, scores, prints; returns the exit code.

    Args:
        checkpoint: folder; "" for the one in the box.
        config: its size is replaced: by ``size`` (WxH) or, without one, by what the checkpoint's pixel budget makes of
            a 640x480 camera, which is what the node shows it.
        view: name of what the first column is shown, see ``arms.all_views``.
        also: see OtherCheckpoint.
        json_path: for the report; a checkpoint's own lies beside its weights as evaluation.json.
        answers_path: for one JSON line per question with every arm's text.

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
    views = all_views()
    arms = [ModelArm(loaded.identity.name, loaded, views[view], max_new_tokens)]
    arms += [ModelArm(own, loaded, views[own], max_new_tokens) for own in _OWN_VIEWS]
    for other in others:
        beside, _ = load_checkpoint(other.folder, used_device)
        arms.append(ModelArm(other.name, beside, views[other.view], max_new_tokens))
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"Two columns have the same name: {', '.join(names)}. Name those of --also differently."
        )
    started_s = time.monotonic()
    run = answer_rooms(RoomSet(config), arms)
    if not run.answers.questions:
        raise ConfigurationError("No question was answered: every room was left out, the log says why.")
    described = [
        ArmInfo(arm.name, arm.meaning, arm.looks, arm.loaded.identity.name, arm.loaded.identity.sha256) for arm in arms
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
