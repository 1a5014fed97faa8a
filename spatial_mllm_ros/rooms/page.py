"""A page for people: some rooms with plan, frames and questions, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import colorsys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.rooms.clips import Clip, ClipConfig, make_clips
from spatial_mllm_ros.rooms.renderer.sensor import REALISTIC
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.rooms.world.walk import make_walk
from spatial_mllm_ros.scene_questions.balance import balanced_questions
from spatial_mllm_ros.scene_questions.evidence import Evidence, Limits
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation
from spatial_mllm_ros.scene_questions.scene_question import SceneQuestion
from spatial_mllm_ros.storage import write_text

_TEMPLATES = Path(__file__).parent / "templates"
_CLIP = ClipConfig(frames=18, width_px=448, height_px=336, sensor=REALISTIC, workers=2)
_MARGIN_M = 0.3  # around the rooms of a plan


@dataclass(frozen=True)
class DrawnThing:
    """The box of a thing on a plan; ``clear``: the frames show it well."""

    label: str
    points: str
    color: str
    clear: bool


@dataclass(frozen=True)
class DrawnName:
    """Where the name of a thing is written."""

    label: str
    x: float
    y: float


@dataclass(frozen=True)
class DrawnView:
    """Where a frame was taken, and a line in the direction of view."""

    x: float
    y: float
    points: str


@dataclass(frozen=True)
class PlanDrawing:
    """A plan from above for the template: metres, x to the right, y down, the origin at the top left.

    Attributes:
        font_m, line_m: height of the letters, width of a thin line.
        outlines: rooms; walk: the camera's way; both as the points of SVG's polygons.
    """

    width_m: float
    height_m: float
    font_m: float
    line_m: float
    outlines: tuple[str, ...]
    things: tuple[DrawnThing, ...]
    walk: str
    names: tuple[DrawnName, ...]
    views: tuple[DrawnView, ...]


@dataclass(frozen=True)
class ShownFrame:
    """A frame on the page: a data URI, and seconds after the first frame."""

    jpeg: str
    time_s: float


@dataclass(frozen=True)
class ShownRoom:
    """One world on the page."""

    name: str
    rooms: int
    area_m2: float
    things: int
    plan: PlanDrawing
    frames: tuple[ShownFrame, ...]
    questions: tuple[SceneQuestion, ...]


def write_rooms_page(path: Path, seeds: Sequence[int], *, per_type: int = 1, config: ClipConfig = _CLIP) -> None:
    """Writes the page about the worlds of ``seeds``: every second frame, the plan, ``per_type`` questions per type.

    Raises:
        SourceError: the file cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    clips = [make_clips([seed], config)[0] for seed in seeds]
    questions = balanced_questions([clip.annotation for clip in clips], per_type=per_type, vocabulary=LABELS)
    rooms = [_room(clip, [q for q in questions if q.scene == clip.annotation.name]) for clip in clips]
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("rooms.html.j2").render(rooms=rooms)
    try:
        write_text(path, page)
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from error


def _room(clip: Clip, questions: Sequence[SceneQuestion]) -> ShownRoom:
    scene, shown = clip.annotation, range(0, len(clip.rgb), 2)
    times_s = (clip.stamps_ns - clip.stamps_ns[0]) / 1e9
    return ShownRoom(
        name=scene.name,
        rooms=len(scene.rooms),
        area_m2=sum(room.area_m2 for room in scene.rooms),
        things=len(scene.objects),
        plan=draw_plan(scene, make_walk(clip.world).track[:, :2], shown),
        frames=tuple(ShownFrame(_jpeg(clip.rgb[f].numpy()), float(times_s[f])) for f in shown),
        questions=tuple(questions),
    )


def draw_plan(scene: SceneAnnotation, track_m: np.ndarray, frames: Sequence[int]) -> PlanDrawing:
    """The plan of a scene whose frames are known, with the camera's walk float64 [T, 2] and the views of ``frames``."""
    corners = np.concatenate([room.polygon_m for room in scene.rooms])
    low, high = corners.min(0) - _MARGIN_M, corners.max(0) + _MARGIN_M
    width, height = (float(side) for side in high - low)
    font = max(width, height) * 0.021

    def on_plan(points_m: np.ndarray) -> np.ndarray:
        return np.stack([points_m[..., 0] - low[0], high[1] - points_m[..., 1]], -1)

    def drawn(points_m: np.ndarray) -> str:
        return " ".join(f"{x:.3f},{y:.3f}" for x, y in on_plan(points_m))

    clear = Evidence(scene, Limits()).clear
    return PlanDrawing(
        width_m=width,
        height_m=height,
        font_m=font,
        line_m=0.15 * font,
        outlines=tuple(drawn(room.polygon_m) for room in scene.rooms),
        things=tuple(
            DrawnThing(thing.label, drawn(thing.box.footprint()), _color(thing.label), thing.id in clear)
            for thing in sorted(scene.objects, key=lambda thing: float(thing.box.centre_m[2]))  # high ones on top
        ),
        walk=drawn(track_m[::4]),
        names=_names(scene, on_plan, font),
        views=_views(scene, frames, on_plan, drawn, 2.2 * font),
    )


def _names(scene: SceneAnnotation, on_plan: Callable[[np.ndarray], np.ndarray], font_m: float) -> tuple[DrawnName, ...]:
    """Names at the centres of the things, those of large things first, moved down until no two overlap."""
    names: list[DrawnName] = []
    for thing in sorted(scene.objects, key=lambda thing: -float(thing.box.size_m[:2].max())):
        x, y = on_plan(thing.box.centre_m)
        while any(abs(x - name.x) < 5.2 * font_m and abs(y - name.y) < font_m for name in names):
            y += font_m
        names.append(DrawnName(thing.label, float(x), float(y)))
    return tuple(names)


def _views(
    scene: SceneAnnotation,
    frames: Sequence[int],
    on_plan: Callable[[np.ndarray], np.ndarray],
    drawn: Callable[[np.ndarray], str],
    length_m: float,
) -> tuple[DrawnView, ...]:
    if scene.visibility is None:
        return ()
    views = []
    for pose in scene.visibility.scene_from_cam[list(frames)]:
        eye, ahead = pose[:2, 3], pose[:2, 2]
        tip = eye + length_m * ahead / max(float(np.hypot(*ahead)), 1e-6)
        x, y = on_plan(eye)
        views.append(DrawnView(float(x), float(y), drawn(np.stack([eye, tip]))))
    return tuple(views)


def _color(label: str) -> str:
    red, green, blue = colorsys.hls_to_rgb((zlib.crc32(label.encode()) % 360) / 360.0, 0.62, 0.45)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


def _jpeg(rgb: np.ndarray) -> str:
    data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
