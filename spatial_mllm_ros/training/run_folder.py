"""The folder of a training run: what was run on what, every step's figures, bad samples, states to resume from."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spatial_mllm_ros.errors import SampleRejectedError, TrainingError
from spatial_mllm_ros.provenance import machine, versions
from spatial_mllm_ros.storage import is_temporary, remove_leftovers, whole_file, whole_folder, write_text

_LOG = logging.getLogger(__name__)
_PACKAGES = ("accelerate", "deepspeed", "tokenizers")
_DESCRIPTION = "run.json"
_STATES = "states"
_STATE_PREFIX = "step-"
#: Options that may change when a run is resumed: they decide where and how it runs, and not the weights.
_MAY_CHANGE = frozenset(
    f"run.{name}" for name in ("out", "resume", "device", "threads", "save_every", "keep_states", "save_dtype")
) | {"data.workers", "loss.measure_every", "loss.measure_samples"}


class RunFolder:
    """Writes run.json, metrics.jsonl and states/, each so that a kill at any moment leaves it usable.

    Args:
        path: the folder.
        description: becomes run.json: at least ``config`` (nested plain values) and ``data`` (hashes).
        resume: continue the run in the folder; in a folder without a run, start one.

    Raises:
        TrainingError: the folder holds a run already and ``resume`` is off, or holds another run.
    """

    def __init__(self, path: Path, description: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self._metrics = path / "metrics.jsonl"
        self._description = path / _DESCRIPTION
        self._states = path / _STATES
        refuse_a_run(path, resume=resume)
        if self._description.is_file():
            self._check_same(json.loads(self._description.read_text(encoding="utf-8")), description)
        self._states.mkdir(parents=True, exist_ok=True)
        for name in {path.stem for path in self._states.iterdir() if is_temporary(path.name)}:
            remove_leftovers(self._states / name)
        if not self._description.is_file():
            content = {**description, "versions": versions(*_PACKAGES), "machine": machine() | _processes()}
            write_text(self._description, json.dumps(content, indent=2) + "\n")

    @contextlib.contextmanager
    def new_state(self, step: int, *, keep: int) -> Iterator[Path]:
        """An empty folder to write the state after ``step`` steps to; it counts when the block ends without an error.

        Then all but the ``keep`` newest states are removed.
        """
        with whole_folder(self._states / f"{_STATE_PREFIX}{step:09d}", replace=True) as part:
            yield part
        for old in states_of(self.path)[:-keep]:
            shutil.rmtree(old)

    def rewind(self, step: int) -> None:
        """Removes the rows of steps after ``step``, which a resumed run repeats."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        write_text(self._metrics, "".join(json.dumps(row) + "\n" for row in kept))

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds the row of one step (``step`` counts from 1)."""
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All rows logged so far; an incomplete last line, left by a killed process, is skipped."""
        rows: list[dict[str, Any]] = []
        if self._metrics.is_file():
            for line in self._metrics.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return rows

    def _check_same(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(new))
        changed = [name for name in _changed_options(old["config"], wanted["config"]) if name not in _MAY_CHANGE]
        if changed:
            raise TrainingError(
                f"{self.path} holds a run with other values of {', '.join(changed)}; resume it with the same options, "
                "or choose another folder."
            )
        differing = [name for name, digest in wanted["data"].items() if old["data"].get(name) != digest]
        if differing or len(old["data"]) != len(wanted["data"]):
            raise TrainingError(
                f"{self.path} holds a run on other data: {', '.join(differing) or 'files are missing'} changed since "
                "it was started. Start a new run."
            )


class BadSamples:
    """Counts samples that were left out, and writes each of them once, with file, line, cause and message.

    Several threads may report.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen: set[tuple[str, int]] = set()
        self.counts: Counter[str] = Counter()
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break
                self._count(row["file"], row["line"], row["cause"])

    def report(self, file: Path, line: int, error: SampleRejectedError) -> None:
        """Writes a sample to the file, unless it is in there."""
        with self._lock:
            if not self._count(str(file), line, error.cause):
                return
            row = {"file": str(file), "line": line, "cause": error.cause, "message": str(error)}
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
        if self.counts[error.cause] <= 3:
            _LOG.warning("%s, line %d is left out (%s): %s", file, line, error.cause, error)

    def _count(self, file: str, line: int, cause: str) -> bool:
        new = (file, line) not in self._seen
        if new:
            self._seen.add((file, line))
            self.counts[cause] += 1
        return new

    @property
    def total(self) -> int:
        """How many samples were left out."""
        return sum(self.counts.values())


def refuse_a_run(path: Path, *, resume: bool) -> None:
    """Refuses a folder that holds a run, unless the run is to be resumed; call it before anything is written there.

    Raises:
        TrainingError: the folder holds a run and ``resume`` is off.
    """
    if not resume and (path / _DESCRIPTION).is_file():
        raise TrainingError(f"{path} holds a run already; add --run.resume to continue it, or choose another folder.")


def _changed_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names (``group.option``) of what differs between two configurations, as ``run.as_plain`` gives them."""
    a, b = (
        {f"{group}.{name}": value for group, options in plain.items() for name, value in options.items()}
        for plain in (old, new)
    )
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


def states_of(run: Path) -> list[Path]:
    """The folders of a run's complete states, oldest first; ``step_of`` gives the step of each."""
    return sorted(path for path in (run / _STATES).glob(f"{_STATE_PREFIX}*") if not is_temporary(path.name))


def step_of(state: Path) -> int:
    """After how many optimiser steps a state was saved."""
    return int(state.name.removeprefix(_STATE_PREFIX))


def draw_losses(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """A picture of the loss over the steps, each step's and smoothed, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    smooth, value = [], None
    for loss in losses:
        value = loss if value is None else 0.95 * value + 0.05 * loss
        smooth.append(value)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="0.75", linewidth=0.8, label="each step")
    axes.plot(steps, smooth, color="tab:blue", label="smoothed")
    axes.set(xlabel="optimiser step", ylabel="loss", title=title)
    axes.legend()
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=110)


def _processes() -> dict[str, Any]:
    return {
        "processes": int(os.environ.get("WORLD_SIZE", "1")),  # of the launcher
        "threads": torch.get_num_threads(),
        "gpus": torch.cuda.device_count(),
    }
