"""One picture of a replay: the selected frames beside a map of what they and a uniform selection have seen."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.replay.coverage_figures import CoverageFigures, SeenFrame, union_keys
from spatial_mllm_ros.report.charts import PATH, SELECTED, UNIFORM
from spatial_mllm_ros.scene.voxels import voxel_centres
from spatial_mllm_ros.storage import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

# Okabe and Ito's palette: told apart with any colour vision, and by lightness in a grey print.
NEITHER, BOTH = "#ececec", "#b4b4b4"
TRUTH = "#b03060"
# Layout, in inches: the contact sheet on the left, the map on the right.
_SHEET_WIDTH, _MAP_WIDTH, _HEIGHT, _TITLE, _CAPTION, _GAP = 9.4, 7.9, 8.4, 0.45, 0.27, 0.12
_NOTE, _NOTE_LETTER = 0.24, 0.08  # height of a line of text below, width of a letter in it
_SHEET_HEIGHT = _HEIGHT - _TITLE - _GAP
_SNAP_DEG = 25.0  # a scene whose vertical is within this of an axis is drawn along its own axes


@dataclass(frozen=True, eq=False)
class ContactFrame:
    """One frame of the contact sheet: uint8 [H, W, 3] RGB, and the number of voxels that the frame adds."""

    stamp_ns: int
    rgb: np.ndarray
    gain: int


@dataclass(frozen=True, eq=False)
class KnownScene:
    """What is known of a scene and drawn into its map, in the scene frame.

    Attributes:
        outlines: walls of each room on the floor, float64 [K, 3].
        things: names, and corners of the base float64 [4, 3], of the things that were asked about.
        notes: texts below the picture; each begins a line.
    """

    outlines: Sequence[np.ndarray] = ()
    things: Sequence[tuple[str, np.ndarray]] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class MapPlane:
    """The horizontal plane of the map: ``across`` x ``along`` = up, so that the map is not mirrored.

    Attributes:
        across, along: unit vectors float64 [3] in the scene frame, to the right and to the top of the map.
        labels: names of the two axes.
    """

    across: np.ndarray
    along: np.ndarray
    labels: tuple[str, str]


def map_plane(poses: Sequence[np.ndarray]) -> MapPlane:
    """The plane seen from above. The cameras give the direction up: on average they are upright.

    Args:
        poses: camera-to-scene [4, 4], at least one; camera y points down.
    """
    up = -np.mean([pose[:3, 1] for pose in poses], axis=0)
    if np.linalg.norm(up) < 0.1:  # the camera turned over on its way, so that the mean gives no direction
        up = -np.asarray(poses[0])[:3, 1]
    up = up / np.linalg.norm(up)
    axis = int(np.abs(up).argmax())
    if np.degrees(np.arccos(min(1.0, abs(up[axis])))) <= _SNAP_DEG:
        first, second = (axis + 1) % 3, (axis + 2) % 3  # their cross product is the positive axis
        if up[axis] < 0:
            first, second = second, first
        unit = np.eye(3)
        return MapPlane(unit[first], unit[second], ("xyz"[first], "xyz"[second]))
    forward = np.asarray(poses[0])[:3, 2]
    along = forward - (forward @ up) * up
    if np.linalg.norm(along) < 1e-6:
        along = np.cross(up, np.asarray(poses[0])[:3, 0])
    along /= np.linalg.norm(along)
    return MapPlane(np.cross(along, up), along, ("to the right of the first view", "forward in the first view"))


def write_picture(
    path: Path,
    contact: Sequence[ContactFrame],
    seen: Sequence[SeenFrame],
    figures: CoverageFigures,
    *,
    fine_voxel_size: float,
    title: str,
    first_stamp_ns: int,
    known: KnownScene | None = None,
) -> None:
    """Writes the picture as PNG; the same input gives the same bytes.

    Args:
        contact: the selected frames, in time order; at least one.
        seen: every frame placed in the scene.
        figures: from ``coverage_figures`` of the same frames.
        fine_voxel_size: edge length of the finest voxels, as in ``coverage_figures``.
        first_stamp_ns: from which the times in the captions count.
        known: what is known of the scene, drawn into the map and below the picture.

    Raises:
        ConfigurationError: nothing was selected or seen.
        OSError: the file cannot be written.
    """
    if not contact or not seen:
        raise ConfigurationError("There is no frame to draw: nothing was selected; see the report for the reason.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = _SHEET_WIDTH + 2 * _GAP + _MAP_WIDTH
    known = known or KnownScene()
    letters = int((width - 2 * _GAP) / _NOTE_LETTER)
    notes = [line for note in known.notes for line in textwrap.wrap(note, letters, subsequent_indent=4 * " ")]
    below = _NOTE * (len(notes) + 1) if notes else 0.0
    height = _HEIGHT + below
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    ratios = (width - _MAP_WIDTH, _MAP_WIDTH)
    upper = (
        figure.subfigures(2, 1, squeeze=False, height_ratios=(_HEIGHT, below), hspace=0.0)[0, 0] if below else figure
    )
    sheet, plan = upper.subfigures(1, 2, squeeze=False, width_ratios=ratios, wspace=0.0)[0]
    figure.suptitle(title, fontsize=15, x=_GAP / width, y=1 - 0.1 / height, ha="left", va="top")
    for number, line in enumerate(notes):
        figure.text(_GAP / width, (below - _NOTE * (number + 0.5)) / height, line, fontsize=10, va="center", ha="left")
    _draw_contact_sheet(sheet, contact, first_stamp_ns)
    axes = plan.add_axes((0.085, 0.2, 0.895, 0.7))
    _draw_map(axes, contact, seen, figures, fine_voxel_size, with_truth=bool(known.outlines or known.things))
    _draw_known(axes, known, map_plane([frame.scene_from_cam for frame in seen]))
    with whole_file(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _image_size(count: int, columns: int, aspect: float) -> tuple[float, float]:
    """Largest width and height, in inches, of ``count`` images in ``columns`` columns of the sheet."""
    rows = math.ceil(count / columns)
    width = min(_SHEET_WIDTH / columns - _GAP, ((_SHEET_HEIGHT / rows) - _CAPTION) * aspect)
    return width, width / aspect


def _draw_contact_sheet(sheet: SubFigure, contact: Sequence[ContactFrame], first_stamp_ns: int) -> None:
    aspect = contact[0].rgb.shape[1] / contact[0].rgb.shape[0]
    columns = max(range(1, len(contact) + 1), key=lambda n: _image_size(len(contact), n, aspect)[0])
    width, height = _image_size(len(contact), columns, aspect)
    across, down = _SHEET_WIDTH + 2 * _GAP, _HEIGHT
    for number, frame in enumerate(contact, start=1):
        row, column = divmod(number - 1, columns)
        left = _GAP + column * (width + _GAP)
        bottom = _HEIGHT - _TITLE - row * (height + _CAPTION) - _CAPTION - height
        axes = sheet.add_axes((left / across, bottom / down, width / across, height / down))
        axes.axis("off")
        axes.imshow(_thumbnail(frame.rgb), interpolation="antialiased", aspect="equal")
        seconds = (frame.stamp_ns - first_stamp_ns) / 1e9
        axes.set_title(f"{number}   {seconds:.1f} s   +{frame.gain:,} voxels", fontsize=9, pad=3, loc="left")


def _thumbnail(rgb: np.ndarray) -> np.ndarray:
    """At most 480 px wide: a contact sheet shows no more, and full-size frames make the file ten times as large."""
    import cv2

    height, width = rgb.shape[:2]
    if width <= 480:
        return rgb
    return cv2.resize(rgb, (480, max(1, round(height * 480 / width))), interpolation=cv2.INTER_AREA)


def draw_plan(
    axes: Axes,
    selected_stamps: Sequence[int],
    seen: Sequence[SeenFrame],
    figures: CoverageFigures,
    fine_voxel_size: float,
) -> np.ndarray:
    """Draws voxels, camera path and cameras seen from above, without title and legend.

    Args:
        selected_stamps: of the selected frames, in the order in which they are numbered.
        seen, figures, fine_voxel_size: see ``write_picture``.

    Returns:
        numbers of voxels int [4] seen by neither selection, by both, by selected frames only, by uniform frames only.
    """
    from matplotlib.colors import ListedColormap

    plane = map_plane([frame.scene_from_cam for frame in seen])
    level = round(math.log2(figures.voxel_size / fine_voxel_size))
    everything = union_keys(seen, None, level)
    in_selected = np.isin(everything, union_keys(seen, selected_stamps, level))
    in_uniform = np.isin(everything, union_keys(seen, figures.uniform_stamps_ns, level))
    classes = np.select([in_selected & in_uniform, in_selected, in_uniform], [1, 2, 3], default=0)
    counts = np.bincount(classes, minlength=4)
    if len(everything):
        centres = voxel_centres(everything, fine_voxel_size, level).astype(np.float64)
        raster, extent = _columns_from_above(centres @ plane.across, centres @ plane.along, classes, figures.voxel_size)
        colors = ListedColormap(["none", NEITHER, BOTH, SELECTED, UNIFORM])
        axes.imshow(raster, cmap=colors, vmin=0, vmax=4, origin="lower", extent=extent, interpolation="nearest")
    positions = np.array([f.scene_from_cam[:3, 3] for f in seen])
    axes.plot(positions @ plane.across, positions @ plane.along, color=PATH, lw=1.2, zorder=3)
    by_stamp = {frame.stamp_ns: frame for frame in seen}
    _draw_cameras(axes, [by_stamp[s] for s in figures.uniform_stamps_ns], plane, UNIFORM, "s", 30, 4)
    selected = {number: by_stamp[stamp] for number, stamp in enumerate(selected_stamps, start=1) if stamp in by_stamp}
    _draw_cameras(axes, list(selected.values()), plane, SELECTED, "o", 105, 5)
    unit = "m" if figures.unit == "m" else "relative units"
    axes.set_xlabel(f"{plane.labels[0]} ({unit})")
    axes.set_ylabel(f"{plane.labels[1]} ({unit})")
    axes.set_aspect("equal", adjustable="datalim")
    _number_cameras(axes, selected, plane)
    axes.tick_params(labelsize=9)
    return counts


def _draw_map(
    axes: Axes,
    contact: Sequence[ContactFrame],
    seen: Sequence[SeenFrame],
    figures: CoverageFigures,
    fine_voxel_size: float,
    *,
    with_truth: bool,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    counts = draw_plan(axes, [frame.stamp_ns for frame in contact], seen, figures, fine_voxel_size)
    share = 100.0 / max(figures.total, 1)
    size = f"{100 * figures.voxel_size:.3g} cm" if figures.unit == "m" else f"{figures.voxel_size:.3g} relative units"
    axes.set_title(
        f"Seen from above: {figures.total:,} voxels of {size}, seen by {figures.candidates} frames together\n"
        f"{len(contact)} selected frames see {figures.selected:,} ({share * figures.selected:.1f} %), "
        f"{len(figures.uniform_stamps_ns)} at equal distances {figures.uniform:,} ({share * figures.uniform:.1f} %)\n"
        f"an offline greedy choice of as many {figures.offline_greedy:,} ({share * figures.offline_greedy:.1f} %)",
        fontsize=10,
        loc="left",
    )
    handles = [
        Patch(facecolor=SELECTED, label=f"only selected frames see it ({counts[2]:,})"),
        Patch(facecolor=UNIFORM, label=f"only uniform frames see it ({counts[3]:,})"),
        Patch(facecolor=BOTH, label=f"both see it ({counts[1]:,})"),
        Patch(facecolor=NEITHER, edgecolor="#bbbbbb", label=f"only other frames see it ({counts[0]:,})"),
        Line2D([], [], color=PATH, lw=1.2, label="camera path"),
        Line2D([], [], color=SELECTED, marker="o", ls="", ms=8, mec="white", label="selected camera"),
        Line2D([], [], color=UNIFORM, marker="s", ls="", ms=6, mec="white", label="uniform camera"),
    ]
    if with_truth:
        handles.append(Line2D([], [], color=TRUTH, lw=1.4, label="truth (walls, things)"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, fontsize=9, frameon=False)


def _draw_known(axes: Axes, known: KnownScene, plane: MapPlane) -> None:
    for corners in (*known.outlines, *(base for _, base in known.things)):
        closed = np.concatenate([corners, corners[:1]])
        axes.plot(closed @ plane.across, closed @ plane.along, color=TRUTH, lw=1.4, zorder=3)
    for name, base in known.things:
        middle = base.mean(axis=0)
        at = (middle @ plane.across, middle @ plane.along)
        behind = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.annotate(name, at, color=TRUTH, fontsize=9, ha="center", va="center", zorder=8, bbox=behind)


def _columns_from_above(
    across: np.ndarray, along: np.ndarray, classes: np.ndarray, voxel_size: float
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Raster int [rows, columns] of the class of each column of voxels, and its extent.

    The value is 0 for a column without voxels, otherwise 1 + a class: "selected only" or "uniform only" where a quarter
    of the voxels are of that class, because the map shows the difference; elsewhere the more frequent of the others.
    """
    low = np.array([across.min(), along.min()]) - voxel_size / 2
    cells = np.floor((np.stack([across, along], axis=1) - low) / voxel_size).astype(int)
    columns, rows = cells.max(axis=0) + 1
    counts = np.zeros((4, rows, columns), int)
    np.add.at(counts, (classes, cells[:, 1], cells[:, 0]), 1)
    neither, both, selected, uniform = counts
    raster = np.where(both >= neither, 2, 1)
    quarter = 0.25 * counts.sum(axis=0)
    raster[(selected > uniform) & (selected >= quarter)] = 3
    raster[(uniform > selected) & (uniform >= quarter)] = 4
    raster[counts.sum(axis=0) == 0] = 0
    high = low + np.array([columns, rows]) * voxel_size
    return raster, (low[0], high[0], low[1], high[1])


def _number_cameras(axes: Axes, cameras: Mapping[int, SeenFrame], plane: MapPlane) -> None:
    """Writes the numbers of the contact sheet on the cameras; a number that would cover another is left out."""
    axes.apply_aspect()
    written: list[np.ndarray] = []
    for number, camera in cameras.items():
        position = camera.scene_from_cam[:3, 3]
        at = (position @ plane.across, position @ plane.along)
        pixel = axes.transData.transform(at)
        if any(np.hypot(*(pixel - other)) < 14 for other in written):
            continue
        written.append(pixel)
        axes.annotate(str(number), at, color="white", fontsize=7, ha="center", va="center_baseline", zorder=7)


def _draw_cameras(
    axes: Axes, frames: Sequence[SeenFrame], plane: MapPlane, color: str, marker: str, size: int, order: int
) -> None:
    """Draws positions, each with a short line in the direction of view."""
    poses = np.array([frame.scene_from_cam for frame in frames])
    if not len(poses):
        return
    x, y = poses[:, :3, 3] @ plane.across, poses[:, :3, 3] @ plane.along
    dx, dy = poses[:, :3, 2] @ plane.across, poses[:, :3, 2] @ plane.along
    axes.quiver(x, y, dx, dy, color=color, angles="xy", scale_units="inches", scale=3.2, width=0.0028, zorder=order)
    axes.scatter(x, y, s=size, color=color, marker=marker, edgecolors="white", linewidths=0.8, zorder=order + 1)
