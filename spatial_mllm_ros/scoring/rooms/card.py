"""The model card beside the weights: what they are, what training cost, what they can and cannot do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.models.checkpoints.config import pixel_budget
from spatial_mllm_ros.models.checkpoints.files import read_checkpoint
from spatial_mllm_ros.models.checkpoints.loading import identity_of
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.scoring.rooms.asking import KnownStrengths, known_strengths, summary_lines
from spatial_mllm_ros.scoring.rooms.results import RESULTS_FILE, read_results
from spatial_mllm_ros.storage import write_text

CARD_FILE = "README.md"
_MEASURED = {
    "depth_abs_rel": "depth AbsRel",
    "depth_abs_rel_aligned": "the same, each image scaled by its median",
    "rotation_median_deg": "rotation error, median, degrees",
    "translation_median_m": "translation error, median, m",
}
_TEMPLATE = """---
license: {licence}
pipeline_tag: video-text-to-text
tags: [robotics, spatial-reasoning, ros2]
---
# {name}

{architecture}, {parameters:.1f} M parameters, {megabytes:.1f} MB, in the layout of the published checkpoints. Trained
from fresh weights on procedurally generated rooms only: no scan, no photograph and no published weights went into it.
It is there so that the node answers out of the box and every stage can be run by anyone.

Weights: sha256 `{sha256}`.

## Training

| stage | steps | rooms seen | hours | machine | precision | seed | from |
| --- | ---: | ---: | ---: | --- | --- | ---: | --- |
{runs}

{hours:.1f} hours in all; a step's time is the wall clock on a machine that may have done other work beside it. Rooms
are of the training split (seeds 0 to 899,999,999): new ones in every step, or all steps draw from a pool of so many.
The options of each run:

{options}
{measured}
## How good it is

Rooms of the test split, which no training has seen. Command: `spatial_mllm evaluate rooms --checkpoint {name}`;
everything is in `{results_file}`.

{table}

{strengths}

## Limits

- Generated rooms are boxes, cones and ellipsoids, each class of thing in a colour of its own. Scores on them
  say nothing about real rooms, and on camera images of real ones its answers mean nothing.
- It knows {classes} classes of things and the wordings of VSI-Bench; other questions it answers at random.
- It sees {width_px}x{height_px} pixels of each frame.
- Not for any use in which a wrong answer does harm.
"""


@dataclass(frozen=True)
class TrainingRun:
    """One run folder, as far as the card tells of it."""

    description: Mapping[str, Any]  #: run.json
    rows: Sequence[Mapping[str, Any]]  #: metrics.jsonl

    @classmethod
    def read(cls, folder: Path) -> TrainingRun:
        """Reads run.json and metrics.jsonl.

        Raises:
            SourceError: the folder is no run, or holds no finished step.
        """
        try:
            description = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise SourceError(f"{folder} is not the folder of a training run: {error}.") from error
        if not rows:
            raise SourceError(f"The run in {folder} has not finished a step; there is nothing to tell of it.")
        return cls(description, rows)

    @property
    def hours(self) -> float:
        """Time of all steps."""
        return sum(float(row["seconds"]) for row in self.rows) / 3600

    def row(self) -> str:
        """Its line of the table."""
        run, machine = self.description["config"]["run"], self.description["machine"]
        steps = self.rows[-1]["step"]
        seen = steps * run["batch_size"] * run["accumulate"] * machine["processes"]
        pool = self.description["config"].get("data", {}).get("rooms_pool", 0)
        rooms = f"pool of {pool:,}" if pool else f"{seen:,}" if "rooms" in self.description["data"] else "-"
        cores = machine["processes"] * machine["threads"]
        on_cpu = f"CPU, {cores} of {machine['cores']} cores"
        hardware = f"{machine['gpus']} x {machine['gpu']}" if machine["gpus"] else on_cpu
        start = self.description["start"]
        cells = (
            *(self.description["stage"], f"{steps:,}", rooms, f"{self.hours:.2f}", hardware, run["precision"]),
            *(run["seed"], f"{start['name']} `{start['sha256'][:12]}`"),
        )
        return f"| {' | '.join(map(str, cells))} |"

    def options(self) -> str:
        """What was set, without folders, which say where and not what."""
        texts = [
            f"{group}.{name} {_plain(value)}"
            for group, values in self.description["config"].items()
            for name, value in values.items()
            if not (isinstance(value, str) and "/" in value) and value not in (None, [], False)
        ]
        return f"- {self.description['stage']}: {', '.join(texts)}"

    def measured(self) -> dict[str, float]:
        """The last errors that were measured on rooms of the validation split."""
        return {name: float(row[name]) for row in self.rows for name in _MEASURED if name in row}


def write_card(checkpoint: Path, runs: Sequence[Path]) -> Path:
    """Writes ``README.md`` into a checkpoint folder, from its evaluation.json and the folders of its training runs.

    Raises:
        SourceError: a run or the evaluation cannot be read.
        CheckpointError: the folder is no checkpoint, or cannot be written.
    """
    files = read_checkpoint(checkpoint)
    identity = identity_of(files)
    told = [TrainingRun.read(folder) for folder in runs]
    results_path = checkpoint / RESULTS_FILE
    known = known_strengths(checkpoint)
    table = read_results(results_path)["text"] if known.of else ["Not evaluated yet."]
    measured = next((found for run in reversed(told) if (found := run.measured())), {})
    text = _TEMPLATE.format(
        licence=identity.licence,
        name=identity.name,
        architecture=identity.architecture,
        parameters=sum(math.prod(shape) for shape in files.shapes.values()) / 1e6,
        megabytes=sum(file.stat().st_size for file in files.files) / 1e6,
        sha256=identity.sha256,
        runs="\n".join(run.row() for run in told),
        hours=sum(run.hours for run in told),
        options="\n".join(run.options() for run in told),
        measured=_measured_lines(measured),
        results_file=RESULTS_FILE,
        table="\n".join(table),
        strengths=_bullets(known),
        classes=len(LABELS),
        **_seen_size(files.config),
    )
    path = checkpoint / CARD_FILE
    write_text(path, text)
    return path


def _measured_lines(measured: Mapping[str, float]) -> str:
    if not measured:
        return ""
    rows = [f"| {_MEASURED[name]} | {value:.3g} |" for name, value in measured.items()]
    return "\n".join(["", "Geometry on rooms of the validation split:", "", "| | |", "| --- | ---: |", *rows, ""])


def _bullets(known: KnownStrengths) -> str:
    return "\n".join(f"- {line.strip()}" if line.startswith(" ") else f"\n{line}\n" for line in summary_lines(known))


def _seen_size(config: Mapping[str, Any]) -> dict[str, int]:
    height_px, width_px = pixel_budget(config).size_px(480, 640)
    return {"height_px": height_px, "width_px": width_px}


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
