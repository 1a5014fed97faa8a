"""Pictures of benchmark rows for the documentation, as SVG; the same rows give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.evaluation.benchmark_stream import STAGES
from spatial_mllm_ros.evaluation.files import write_text
from spatial_mllm_ros.evaluation.picture import PATH, SELECTED, UNIFORM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
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
    "unlimited": ("as many, none forgotten", UNIFORM, "-"),
    "selected": ("the frames selected", SELECTED, (0, (4, 2))),
}


def draw_stream(rows: Sequence[Row], path: Path) -> None:
    """Coverage, latency by stage and bytes over the frames seen; a column per stream.

    Args:
        rows: of ``benchmark_stream.stream_rows``; others are not looked at.

    Raises:
        ConfigurationError: there is no such row.
    """
    by_name = {row["name"]: row for row in rows}
    streams = [match[1] for name in by_name if (match := re.match(r"stream\.(.+)\.coverage_ever$", name))]
    if not streams:
        raise ConfigurationError(
            "There is no stream among the rows to draw; measure with `spatial_mllm benchmark stream`."
        )

    def draw(figure: Figure) -> None:
        panels = figure.subplots(3, len(streams), sharex="col", squeeze=False)
        for column, stream in zip(panels.T, streams, strict=True):
            own = {name.removeprefix(f"stream.{stream}."): row for name, row in by_name.items()}
            title = own["frame_p50_ms"]["detail"].split(", JPEG")[0].replace(": ", ":\n", 1)
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


def _draw_coverage(axes: Axes, rows: Mapping[str, Row]) -> None:
    for name, (label, color, style) in _CURVES.items():
        at, voxels = np.array(rows[f"coverage_{name}"]["series"], float).T
        axes.plot(at, voxels / 1e3, color=color, ls=style, lw=1.6, label=label)
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def _draw_latency(axes: Axes, rows: Mapping[str, Row]) -> None:
    at = np.array(rows["frame_p99_ms"]["series"])[:, 0]
    parts = [np.array(rows[f"{stage}_p50_ms"]["series"])[:, 1] for stage in STAGES]
    labels = [f"{stage} (p50)" for stage in STAGES]
    axes.stackplot(at, parts, labels=labels, colors=list(_STAGE_COLORS.values()), lw=0)
    worst = np.array(rows["frame_p99_ms"]["series"])[:, 1]
    axes.plot(at, worst, color=PATH, lw=0.9, label="whole frame (p99)")
    # one stall of the machine must not flatten the rest
    axes.set_ylim(0, 1.25 * float(np.percentile(worst, 95)))


def _draw_bytes(axes: Axes, rows: Mapping[str, Row]) -> None:
    at = np.array(rows["ring_bytes"]["series"])[:, 0]
    parts = [np.array(rows[f"{name}_bytes"]["series"])[:, 1] / 1e6 for name in _HELD_COLORS]
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
