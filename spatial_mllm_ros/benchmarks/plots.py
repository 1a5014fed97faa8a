"""Pictures of benchmark rows for the documentation, as SVG; the same rows give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.benchmarks.stream import STAGES
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.report.charts import PATH, SELECTED, UNIFORM
from spatial_mllm_ros.storage import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmark",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
# Okabe and Ito's palette, one colour per stage.
_STAGE_COLORS = dict(zip(STAGES, ("#56b4e9", "#0072b2", "#009e73", "#e69f00", "#cc79a7"), strict=True))
_HELD_COLORS = {"ring": "#56b4e9", "keyframes": "#0072b2", "index": "#e69f00"}
_CURVES = {
    "ever": ("seen by any frame so far", PATH, (0, (1, 1.5))),
    "held": ("seen by a frame still held", "#009e73", "-"),
    "unlimited": ("as many of all so far", UNIFORM, "-"),
    "selected": ("the frames selected", SELECTED, (0, (4, 2))),
}

_WAY_LABELS = {
    "published": "published-style",
    "chosen": "cold, frames chosen",
    "refresh": "warm, during a refresh",
    "warm": "warm",
}


def draw_stream(rows: Sequence[Row], path: Path) -> None:
    """Coverage, latency by stage and bytes over the frames seen; a column per stream.

    Args:
        rows: of ``benchmarks.stream.stream_rows``; others are ignored.

    Raises:
        ConfigurationError: there is no such row.
    """
    streams = _measured(rows, "stream", "coverage_ever")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(3, len(streams), sharex="col", squeeze=False)
        for column, own in zip(panels.T, streams.values(), strict=True):
            title = own["frame_p50_ms"].detail.split(", JPEG")[0].replace(": ", ":\n", 1)
            column[0].set_title(title, fontsize=9.5, loc="left")
            _draw_coverage(column[0], own)
            _draw_latency(column[1], own)
            _draw_bytes(column[2], own)
            column[2].set_xlabel("frames seen")
        for last in panels[:, -1]:  # the legend stands once per line, beside it
            last.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        panels[0, 0].set_ylabel("thousand voxels")
        panels[1, 0].set_ylabel("ms per frame")
        panels[2, 0].set_ylabel("MB held")

    _write_svg(draw, path, width_in=2.4 + 3.9 * len(streams), height_in=7.4)


def draw_query(rows: Sequence[Row], path: Path) -> None:
    """Time to the first token and to the whole answer per way, p50 with p95, on a logarithmic scale; a panel per model.

    Args:
        rows: of ``benchmarks.query.query_rows``; others are ignored.

    Raises:
        ConfigurationError: there is no such row.
    """
    models = _measured(rows, "query", "warm.total_p50_ms")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(models), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (model, own) in zip(panels, models.items(), strict=True):
            setting = own["warm.total_p50_ms"].detail.split("; ")[-1].split(", at most")[0]
            axes.set_title(f"{model}: {setting}", fontsize=9.5, loc="left")
            _draw_ways(axes, own)
        # One scale for all models, with room for the numbers; set once, because it also ends scaling by the data.
        times_ms = [
            own[f"{way}.{time}_{at}_ms"].value
            for own in models.values()
            for way in _WAY_LABELS
            for time in ("first_token", "total")
            for at in ("p50", "p95")
        ]
        panels[0].set_xlim(min(times_ms) / 3, max(times_ms) * 5)
        panels[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.06), ncols=2)
        panels[-1].set_xlabel("milliseconds from the question's arrival (logarithmic; bar: p50, whisker: p95)")

    _write_svg(draw, path, width_in=8.6, height_in=0.9 + 2.2 * len(models))


def _measured(rows: Sequence[Row], part: str, known_by: str) -> dict[str, dict[str, Row]]:
    """Per stream or model that was measured, its rows by their last names."""
    named = {row.name: row for row in rows}
    found = re.findall(rf"^{part}\.(.+)\.{re.escape(known_by)}$", "\n".join(named), re.MULTILINE)
    if not found:
        raise ConfigurationError(
            f"There is nothing of the part {part} among the rows to draw; measure with `spatial_mllm benchmark {part}`."
        )
    return {one: {name.removeprefix(f"{part}.{one}."): row for name, row in named.items()} for one in found}


def _draw_ways(axes: Axes, rows: Mapping[str, Row]) -> None:
    at = np.arange(len(_WAY_LABELS))[::-1]
    for what, label, color, shift in (
        ("first_token", "to the first token", SELECTED, 0.2),
        ("total", "to the whole answer", "#9ecae1", -0.2),
    ):
        middle, high = (
            np.array([rows[f"{way}.{what}_p{share}_ms"].value for way in _WAY_LABELS]) for share in (50, 95)
        )
        error = [np.zeros(len(at)), np.maximum(0.0, high - middle)]
        axes.barh(at + shift, middle, height=0.36, color=color, label=label)
        axes.errorbar(middle, at + shift, xerr=error, fmt="none", ecolor=PATH, elinewidth=1.0, capsize=2.5)
        for y, value, end in zip(at + shift, middle, high, strict=True):
            axes.annotate(_milliseconds(value), (max(value, end), y), (5, 0), textcoords="offset points", va="center")
    counts = {way: rows[f"{way}.total_p50_ms"].detail.split("n = ")[1].split(";")[0] for way in _WAY_LABELS}
    axes.set_yticks(at, [f"{label}\n(n = {counts[way]})" for way, label in _WAY_LABELS.items()])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")


def _milliseconds(value: float) -> str:
    return f"{value / 1e3:.3g} s" if value >= 1e3 else f"{value:.3g} ms"


def _draw_coverage(axes: Axes, rows: Mapping[str, Row]) -> None:
    for name, (label, color, style) in _CURVES.items():
        at, voxels = np.array(rows[f"coverage_{name}"].series, float).T
        axes.plot(at, voxels / 1e3, color=color, ls=style, lw=1.6, label=label)
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def _draw_latency(axes: Axes, rows: Mapping[str, Row]) -> None:
    at = np.array(rows["frame_p99_ms"].series)[:, 0]
    parts = [np.array(rows[f"{stage}_p50_ms"].series)[:, 1] for stage in STAGES]
    labels = [f"{stage} (p50)" for stage in STAGES]
    axes.stackplot(at, parts, labels=labels, colors=list(_STAGE_COLORS.values()), lw=0)
    worst = np.array(rows["frame_p99_ms"].series)[:, 1]
    axes.plot(at, worst, color=PATH, lw=0.9, label="whole frame (p99)")
    # one stall of the machine must not make the rest too small to see
    axes.set_ylim(0, 1.25 * float(np.percentile(worst, 95)))


def _draw_bytes(axes: Axes, rows: Mapping[str, Row]) -> None:
    at = np.array(rows["ring_bytes"].series)[:, 0]
    parts = [np.array(rows[f"{name}_bytes"].series)[:, 1] / 1e6 for name in _HELD_COLORS]
    axes.stackplot(at, parts, labels=list(_HELD_COLORS), colors=list(_HELD_COLORS.values()), lw=0)
    axes.set_ylim(0, 1.05 * float(np.sum(parts, axis=0).max()))


def _write_svg(draw: Any, path: Path, *, width_in: float, height_in: float) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    write_text(path, buffer.getvalue())
