import re
from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.page import draw_plan, write_rooms_page
from spatial_mllm_ros.rooms.world.walk import make_walk
from spatial_mllm_ros.scene_questions.evidence import Evidence, Limits

CLIP = ClipConfig(frames=6, width_px=64, height_px=48)


@pytest.fixture(scope="module")
def clip():
    return make_clips([41], CLIP)[0]


@pytest.fixture(scope="module")
def plan(clip):
    return draw_plan(clip.annotation, make_walk(clip.world).track[:, :2], [0, 3])


def test_a_plan_has_every_room_thing_and_chosen_frame_within_its_borders(clip, plan):
    scene = clip.annotation
    assert len(plan.outlines) == len(scene.rooms)
    assert sorted(thing.label for thing in plan.things) == sorted(thing.label for thing in scene.objects)
    assert len(plan.views) == 2
    texts = [*plan.outlines, plan.walk, *(thing.points for thing in plan.things)]
    points = np.array([[float(v) for v in pair.split(",")] for text in texts for pair in text.split()])
    assert (points >= 0).all()
    assert (points <= (plan.width_m, plan.height_m)).all()


def test_a_view_points_where_the_camera_looks_with_y_up(clip, plan):
    pose = clip.annotation.visibility.scene_from_cam[3]
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in plan.views[1].points.split())
    ahead = np.array([x1 - x0, y0 - y1]) / np.hypot(x1 - x0, y1 - y0)
    assert ahead @ pose[:2, 2] / np.linalg.norm(pose[:2, 2]) > 0.999


def test_names_do_not_overlap_and_what_was_not_seen_is_marked(clip, plan):
    names = plan.names
    assert len(names) == len(clip.annotation.objects)
    for n, one in enumerate(names):
        assert all(abs(one.x - o.x) >= 5.2 * plan.font_m or abs(one.y - o.y) >= plan.font_m for o in names[:n])
    clear = Evidence(clip.annotation, Limits()).clear
    assert 0 < sum(thing.clear for thing in plan.things) == len(clear) < len(clip.annotation.objects)


def test_the_page_escapes_texts_and_marks_the_right_option(tmp_path, monkeypatch):
    from spatial_mllm_ros.rooms import page

    made = page.balanced_questions

    def strange(*args, **kwargs):
        return [replace(q, text=f"<script>{q.text}") for q in made(*args, **kwargs)]

    monkeypatch.setattr(page, "balanced_questions", strange)
    write_rooms_page(tmp_path / "page.html", [41], config=CLIP)
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;How many" in html
    right = re.findall(r'<b class="right">([A-D])\. (.+?)</b>', html)
    assert right
    for letter, text in right:
        assert f"<b>{letter} ({text})</b>" in html


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"page\.html cannot be written"):
        write_rooms_page(tmp_path / "absent" / "page.html", [41], config=CLIP)
