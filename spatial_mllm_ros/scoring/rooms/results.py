"""The results of `evaluate rooms`: text for people, JSON for the demo and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.provenance import machine, versions
from spatial_mllm_ros.scene_questions.balance import balance_table
from spatial_mllm_ros.scene_questions.scene_question import QuestionType
from spatial_mllm_ros.scoring.rooms.run import Column, RoomsRun
from spatial_mllm_ros.scoring.rooms.table import MACRO, Comparison, text_table
from spatial_mllm_ros.scoring.runner.clips import FrameChoice
from spatial_mllm_ros.scoring.scorers.base import Figure

FORMAT = "spatial_mllm_ros/rooms_evaluation"
#: Name of the file beside the weights, where the demo looks for it.
RESULTS_FILE = "evaluation.json"
_NO_SPATIAL, _ROOM = "no-spatial", QuestionType.ROOM.value


@dataclass(frozen=True)
class Strength:
    """How good a checkpoint is at one type of question; fractions in [0, 1].

    Attributes:
        score, low, high: its score with the 95 % interval.
        baseline: name of the best column that does not see the room, and ``baseline_score`` its score.
        gain, gain_low, gain_high: the difference, with its own interval.
    """

    type: str
    questions: int
    score: float
    low: float
    high: float
    baseline_score: float
    baseline: str
    gain: float
    gain_low: float
    gain_high: float

    @property
    def sure(self) -> bool:
        """Whether the checkpoint is better than the best baseline, beyond the interval."""
        return self.gain_low > 0


@dataclass(frozen=True, eq=False)
class RoomsReport:
    """Tables of one evaluation.

    Attributes:
        columns: of ``table``, the checkpoint first.
        frames: the columns of ``frames_table``.
        settings: of the rooms and questions.
    """

    columns: tuple[Column, ...]
    table: Comparison
    frames: tuple[tuple[int, FrameChoice], ...]
    frames_table: Comparison | None
    settings: Mapping[str, Any]
    questions: int
    walk_questions: int
    balance: Mapping[str, Mapping[str, int]]
    failed: Mapping[str, int]
    random_weights: bool
    seconds: float

    @classmethod
    def of_run(
        cls,
        run: RoomsRun,
        ablations: Sequence[Column],
        settings: Mapping[str, Any],
        *,
        random_weights: bool,
        seconds: float,
    ) -> RoomsReport:
        """Scores a run; ``ablations`` describe the columns of its answers."""
        table, language_baselines = run.main_table()
        return cls(
            columns=(*ablations, *language_baselines),
            table=table,
            frames=run.frames,
            frames_table=run.frames_table() if run.frames else None,
            settings=dict(settings),
            questions=len(run.answers.questions),
            walk_questions=len(run.walk.questions),
            balance=balance_table(run.answers.questions),
            failed=dict(run.failed),
            random_weights=random_weights,
            seconds=seconds,
        )

    def strengths(self) -> list[Strength]:
        """Per type the checkpoint against the best column that does not see the room, best gain first."""
        own, found = self.table.columns[0], []
        baselines = [n for n, column in enumerate(self.columns) if not column.sees_room]
        for kind in (kind.value for kind in QuestionType):
            if kind not in own:
                continue
            best = max(baselines, key=lambda n: self.table.columns[n][kind].value)
            figure, gain = own[kind], self.table.differences[0][best][kind]
            found.append(
                Strength(
                    *(kind, figure.questions, figure.value, figure.low, figure.high),
                    *(self.table.columns[best][kind].value, self.columns[best].name, gain.value, gain.low, gain.high),
                )
            )
        return sorted(found, key=lambda strength: -strength.gain)

    def lines(self) -> list[str]:
        """The tables as Markdown, and the differences that are aimed at."""
        s = self.settings
        names = [column.name for column in self.columns]
        lines = [
            f"{self.questions} questions about {s['worlds']} {s['split']} rooms from number {s['first']} on, "
            f"{s['frames']} uniform frames of {s['width_px']}x{s['height_px']} pixels ({s['camera']} camera). Percent: "
            "numbers by mean relative accuracy, letters by exact match (VSI-Bench's official rules). ± is half of the "
            "95 % interval (bootstrap over rooms).",
            "",
            *text_table(names, self.table.columns),
            "",
            *(f"- {c.name}: {c.meaning}" + (f" [{c.model}]" if c.model else "") for c in self.columns),
            "",
            *self._aims(),
        ]
        if self.frames_table is not None:
            lines += ["", *self._frame_lines(self.frames_table)]
        if self.failed:
            listed = ", ".join(f"{count} x {cause}" for cause, count in sorted(self.failed.items()))
            lines += ["", f"Rooms left out: {listed}; the log names each."]
        if self.random_weights:
            lines += ["", "The model has random weights: these scores say nothing about Spatial-MLLM."]
        return lines

    def _aims(self) -> list[str]:
        names = [column.name for column in self.columns]
        baseline = max(
            (n for n, column in enumerate(self.columns) if not column.sees_room and column.model),
            key=lambda n: _macro(self.table.columns[n]),
            default=None,
        )
        lines = []
        if baseline is not None:
            over = self.table.differences[0][baseline]
            below = [kind for kind, figure in over.items() if figure.value < 0]
            lines = [
                f"- {names[0]} minus {names[baseline]}: {MACRO} {_signed(over.get(MACRO))} (aim +15), {_ROOM} "
                f"{_signed(over.get(_ROOM))} (aim +25), types below it: {', '.join(below) or 'none'} (aim none)"
            ]
        if _NO_SPATIAL in names:
            over = self.table.differences[0][names.index(_NO_SPATIAL)]
            lines.append(f"- {names[0]} minus {_NO_SPATIAL}: {MACRO} {_signed(over.get(MACRO))} (aim +5)")
        return lines

    def _frame_lines(self, table: Comparison) -> list[str]:
        at = {key: n for n, key in enumerate(self.frames)}
        lines = [
            f"Frames and how they are chosen out of {self.settings['candidates']} of the walk, {self.walk_questions} "
            f"questions that the whole walk answers, {MACRO}:",
            "",
            "| frames | uniform | space-aware | space-aware minus uniform |",
            "| --- | ---: | ---: | ---: |",
        ]
        for count in dict.fromkeys(count for count, _ in self.frames):
            uniform, aware = at[count, FrameChoice.UNIFORM], at[count, FrameChoice.SPACE_AWARE]
            cells = (_plain(table.columns[n].get(MACRO)) for n in (uniform, aware))
            lines.append(f"| {count} | {' | '.join(cells)} | {_signed(table.differences[aware][uniform].get(MACRO))} |")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        frames = []
        if self.frames_table is not None:
            at = {key: n for n, key in enumerate(self.frames)}
            for (count, choice), figures in zip(self.frames, self.frames_table.columns, strict=True):
                over = self.frames_table.differences[at[count, choice]][at[count, FrameChoice.UNIFORM]]
                frames.append(
                    {
                        "frames": count,
                        "choice": choice.value,
                        "figures": _plain_figures(figures),
                        "minus_uniform": _plain_figures(over) if choice is not FrameChoice.UNIFORM else {},
                    }
                )
        return {
            "format": FORMAT,
            "version": 2,
            "model": {
                "name": self.columns[0].model,
                "sha256": self.columns[0].sha256,
                "random_weights": self.random_weights,
            },
            "settings": dict(self.settings),
            "interval": "95 %, bootstrap over rooms; Wilson where all answers of a type are right or all wrong",
            "questions": self.questions,
            "walk_questions": self.walk_questions,
            "columns": [
                asdict(column) | {"figures": _plain_figures(figures)}
                for column, figures in zip(self.columns, self.table.columns, strict=True)
            ],
            "differences": [
                {"column": self.columns[0].name, "minus": column.name, "figures": _plain_figures(figures)}
                for column, figures in zip(self.columns[1:], self.table.differences[0][1:], strict=True)
            ],
            "strengths": [asdict(strength) for strength in self.strengths()],
            "frames": frames,
            "balance": {kind: dict(bins) for kind, bins in self.balance.items()},
            "failed": dict(self.failed),
            "seconds": round(self.seconds, 1),
            "machine": machine(),
            "versions": versions(),
            "text": self.lines(),
        }


def read_results(path: Path) -> dict[str, Any]:
    """What ``to_json`` gave.

    Raises:
        SourceError: the file cannot be read or is another one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SourceError(
            f"{path} is not JSON ({error}); write it again with `spatial_mllm evaluate rooms`."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != 2:
        raise SourceError(f"{path} is not a result of `spatial_mllm evaluate rooms` of this version; write it again.")
    return content


def strengths_of(results: Mapping[str, Any]) -> list[Strength]:
    """The strengths in what ``read_results`` gave, best gain first."""
    return [Strength(**entry) for entry in results["strengths"]]


def _plain_figures(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {
        name: {"value": round(f.value, 5), "low": round(f.low, 5), "high": round(f.high, 5), "questions": f.questions}
        for name, f in figures.items()
    }


def _macro(figures: Mapping[str, Figure]) -> float:
    return figures[MACRO].value if MACRO in figures else 0.0


def _plain(figure: Figure | None) -> str:
    return "-" if figure is None else f"{100 * figure.value:.1f} ± {50 * (figure.high - figure.low):.1f}"


def _signed(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return f"{100 * figure.value:+.1f} [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"
