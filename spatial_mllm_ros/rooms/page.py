"""A page for people: some rooms with plan, frames and questions, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import colorsys
import html
import zlib
from collections.abc import Sequence
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

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2733;--paper:#fbfaf7;--soft:#e9e6df;--accent:#0b6e6e}
@media(prefers-color-scheme:dark){:root{--ink:#e8e6e1;--paper:#171a1e;--soft:#2a2f36;--accent:#5cc4bf}}
body{font:16px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1180px;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin:2.4rem 0 .6rem;border-top:1px solid var(--soft);padding-top:1.4rem}
.room{display:grid;grid-template-columns:minmax(300px,1fr) 1.35fr;gap:1.2rem;align-items:start}
.frames{display:grid;grid-template-columns:repeat(3,1fr);gap:4px}
figure{margin:0}figcaption{font-size:.78rem;opacity:.75}img{width:100%;display:block;border-radius:3px}
svg{width:100%;height:auto}svg text{fill:var(--ink);font-family:system-ui,sans-serif}
table{border-collapse:collapse;width:100%;margin-top:.8rem;font-size:.9rem}
td,th{text-align:left;vertical-align:top;padding:.35rem .5rem;border-bottom:1px solid var(--soft)}
td.t{white-space:nowrap;opacity:.75}b.a{color:var(--accent)}
@media(max-width:760px){.room{grid-template-columns:1fr}}
"""


_CLIP = ClipConfig(frames=18, width_px=448, height_px=336, sensor=REALISTIC, workers=2)


def write_rooms_page(path: Path, seeds: Sequence[int], *, per_type: int = 1, config: ClipConfig = _CLIP) -> None:
    """Writes the page about the worlds of ``seeds``: every second frame, the plan, ``per_type`` questions per type.

    Raises:
        SourceError: the file cannot be written.
    """
    clips = [make_clips([seed], config)[0] for seed in seeds]
    questions = balanced_questions([clip.annotation for clip in clips], per_type=per_type, vocabulary=LABELS)
    body = "".join(_room(clip, [q for q in questions if q.scene == clip.annotation.name]) for clip in clips)
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        f"content='width=device-width,initial-scale=1'><title>Generated rooms</title><style>{_STYLE}</style></head>"
        "<body><h1>Generated rooms and their questions</h1><p>Each room follows from its seed. Boxes, outlines and "
        "answers are exact. On the plan the line is the camera's walk; dots are the frames shown beside it; things "
        "that the frames never show well are dashed and never asked about.</p>"
        f"{body}</body></html>"
    )
    try:
        write_text(path, page)
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from error


def _room(clip: Clip, questions: Sequence[SceneQuestion]) -> str:
    scene = clip.annotation
    area = sum(room.area_m2 for room in scene.rooms)
    shown = range(0, len(clip.rgb), 2)
    start = clip.stamps_ns[0]
    frames = "".join(
        f"<figure><img alt='frame {f + 1}' src='{_jpeg(clip.rgb[f].numpy())}'><figcaption>"
        f"{n}. {(clip.stamps_ns[f] - start) / 1e9:.1f} s</figcaption></figure>"
        for n, f in enumerate(shown, 1)
    )
    rows = "".join(_row(question) for question in questions)
    return (
        f"<h2>{html.escape(scene.name)}: {len(scene.rooms)} room(s), {area:.1f} m², {len(scene.objects)} things</h2>"
        f"<div class='room'><div>{plan_svg(scene, make_walk(clip.world).track[:, :2], list(shown))}</div>"
        f"<div class='frames'>{frames}</div></div>"
        f"<table><tr><th>type</th><th>question</th><th>answer</th></tr>{rows}</table>"
    )


def _row(question: SceneQuestion) -> str:
    text = html.escape(question.text).replace("\n", "<br>")
    for n, option in enumerate(question.options):
        letter = chr(ord("A") + n)
        shown = html.escape(f"{letter}. {option}")
        text += f"<br>{'<b class=a>' + shown + '</b>' if letter == question.truth else shown}"
    answer = question.truth if not question.options else f"{question.truth} ({question.truth_text})"
    return f"<tr><td class=t>{question.type.value}</td><td>{text}</td><td><b>{html.escape(answer)}</b></td></tr>"


def plan_svg(scene: SceneAnnotation, track_m: np.ndarray, frames: Sequence[int]) -> str:
    """The plan from above, y up: outlines, boxes with names, the walk float64 [T, 2], and where frames were taken."""
    corners = np.concatenate([room.polygon_m for room in scene.rooms])
    low, high = corners.min(0) - 0.3, corners.max(0) + 0.3
    width, height = high - low
    font = max(width, height) * 0.021

    def points(values: np.ndarray) -> str:
        return " ".join(f"{x - low[0]:.3f},{high[1] - y:.3f}" for x, y in values)

    seen, clear, line = scene.visibility, Evidence(scene, Limits()).clear, 0.15 * font
    parts = [
        f"<polygon points='{points(room.polygon_m)}' fill='#8881' stroke='currentColor' stroke-width='{3 * line:.3f}'/>"
        for room in scene.rooms
    ]
    tall_first = sorted(range(len(scene.objects)), key=lambda n: scene.objects[n].box.centre_m[2])
    for n in tall_first:
        thing = scene.objects[n]
        hidden = thing.id not in clear
        dash = " stroke-dasharray='.08 .06'" if hidden else ""
        parts.append(
            f"<polygon points='{points(thing.box.footprint())}' fill='{_color(thing.label)}' fill-opacity='.75' "
            f"stroke='currentColor' stroke-width='{line:.3f}'{dash}><title>{thing.label}</title></polygon>"
        )
    parts.append(
        f"<polyline points='{points(track_m[::4])}' fill='none' stroke='#d0342c' stroke-width='{1.4 * line:.3f}' "
        "stroke-opacity='.65'/>"
    )
    taken: list[tuple[float, float]] = []
    for n in sorted(range(len(scene.objects)), key=lambda i: -float(scene.objects[i].box.size_m[:2].max())):
        x, y = scene.objects[n].box.centre_m[0] - low[0], high[1] - scene.objects[n].box.centre_m[1]
        while any(abs(x - a) < 5.2 * font and abs(y - b) < font for a, b in taken):
            y += font
        taken.append((x, y))
        parts.append(
            f"<text x='{x:.2f}' y='{y + font / 3:.2f}' font-size='{font:.3f}' text-anchor='middle'>"
            f"{scene.objects[n].label}</text>"
        )
    if seen is not None:
        for number, f in enumerate(frames, 1):
            eye, ahead = seen.scene_from_cam[f, :2, 3], seen.scene_from_cam[f, :2, 2]
            tip = eye + 2.2 * font * ahead / max(float(np.hypot(*ahead)), 1e-6)
            parts.append(
                f"<polyline points='{points(np.stack([eye, tip]))}' stroke='#d0342c' stroke-width='{2.5 * line:.3f}'/>"
            )
            parts.append(
                f"<circle cx='{eye[0] - low[0]:.2f}' cy='{high[1] - eye[1]:.2f}' r='{0.75 * font:.3f}' fill='#d0342c'/>"
                f"<text x='{eye[0] - low[0]:.2f}' y='{high[1] - eye[1] + font / 3:.2f}' font-size='{font:.3f}' "
                f"text-anchor='middle' style='fill:#fff'>{number}</text>"
            )
    return f"<svg viewBox='0 0 {width:.2f} {height:.2f}' role='img' aria-label='plan'>{''.join(parts)}</svg>"


def _color(label: str) -> str:
    red, green, blue = colorsys.hls_to_rgb((zlib.crc32(label.encode()) % 360) / 360.0, 0.62, 0.45)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


def _jpeg(rgb: np.ndarray) -> str:
    data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
