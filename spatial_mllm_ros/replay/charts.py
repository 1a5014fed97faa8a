"""Charts of one recording: coverage over time, and the scene from above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_mllm_ros.replay.coverage_figures import CoverageFigures, SeenFrame
from spatial_mllm_ros.replay.picture import draw_plan
from spatial_mllm_ros.report.charts import LINE, MUTED, SELECTED, UNIFORM, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def coverage_chart(
    elapsed_s: Sequence[float], selected: Sequence[int], uniform: Sequence[int], total: Sequence[int], *, name: str
) -> str:
    """Voxels seen over time by all frames so far, by the selection of that moment, and by as many uniform frames."""

    def draw(axes: Axes) -> None:
        axes.fill_between(elapsed_s, total, color=LINE, alpha=0.55, lw=0)
        axes.plot(elapsed_s, total, color=MUTED, lw=1.2, label="all frames so far")
        axes.plot(elapsed_s, selected, color=SELECTED, lw=2.0, label="selected frames")
        axes.plot(elapsed_s, uniform, color=UNIFORM, lw=1.5, ls=(0, (4, 2)), label="as many uniform frames")
        axes.set_xlabel("seconds since the first frame")
        axes.set_ylabel("voxels seen")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.yaxis.grid(True, lw=0.6)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=9, loc="lower right")

    return svg_of(draw, name, height_in=3.3)


def map_chart(
    selected_stamps: Sequence[int],
    seen: Sequence[SeenFrame],
    figures: CoverageFigures,
    fine_voxel_size: float,
    *,
    name: str,
) -> str:
    """The scene from above with the camera's path; see ``draw_plan``."""

    def draw(axes: Axes) -> None:
        draw_plan(axes, selected_stamps, seen, figures, fine_voxel_size)
        axes.spines[:].set_visible(True)

    return svg_of(draw, name, height_in=4.6)
