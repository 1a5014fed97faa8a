import json

import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.geometry.oriented_boxes import OrientedBox
from spatial_mllm_ros.scene_questions.scene_annotation import (
    SceneAnnotation,
    SceneObject,
    SceneRoom,
    Visibility,
    box_pixels,
    read_scene,
    write_scene,
)


def scene(**changes):
    objects = (
        SceneObject(3, "chair", OrientedBox(np.array([1.0, 2.0, 0.5]), np.array([0.5, 0.6, 1.0]), 0.3), 0),
        SceneObject(7, "lamp", OrientedBox(np.array([3.0, 1.0, 0.9]), np.array([0.3, 0.3, 1.8]), -1.0), 0),
    )
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = (0.1, 0.2, 0.3)
    pixels = np.array([[0, 5], [12, 0], [7, 90]], np.int32)
    seen = Visibility(np.array([10, 20, 40]), poses, pixels, (pixels / 100).astype(np.float32), (64, 48))
    parts = {
        "name": "a room",
        "objects": objects,
        "rooms": (SceneRoom("room 1", np.array([[0, 0], [4, 0], [4, 3], [2, 3], [2, 5], [0, 5.0]])),),
        "source": "test",
        "visibility": seen,
    }
    return SceneAnnotation(**(parts | changes))


def test_a_scene_is_read_as_it_was_written(tmp_path):
    write_scene(tmp_path / "s.json", scene())
    read = read_scene(tmp_path / "s.json")
    assert (read.name, read.source) == ("a room", "test")
    for old, new in zip(scene().objects, read.objects, strict=True):
        assert (old.id, old.label, old.room) == (new.id, new.label, new.room)
        assert np.allclose(old.box.corners(), new.box.corners(), atol=2e-6)
    assert np.array_equal(read.rooms[0].polygon_m, scene().rooms[0].polygon_m)
    for name in ("stamps_ns", "scene_from_cam", "pixels", "fraction"):
        assert np.allclose(getattr(read.visibility, name), getattr(scene().visibility, name)), name
    assert read.visibility.image_px == (64, 48)


def test_a_scene_without_frames_has_no_visibility(tmp_path):
    write_scene(tmp_path / "s.json", scene(visibility=None))
    assert read_scene(tmp_path / "s.json").visibility is None


def broken(tmp_path, change):
    path = tmp_path / "broken.json"
    write_scene(path, scene())
    path.write_text(change(path.read_text()))
    with pytest.raises(SourceError) as caught:
        read_scene(path)
    return str(caught.value), path


def line_of(path, text):
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_an_object_without_box_is_named_with_its_line_and_the_remedy(tmp_path):
    message, path = broken(tmp_path, lambda text: text.replace('"size_m": [0.3, 0.3, 1.8], ', ""))
    assert f"broken.json, line {line_of(path, 'lamp')}, objects[1]" in message
    assert "'size_m' is missing" in message
    assert "Add or correct it" in message


def test_a_flat_box_is_named_with_its_line(tmp_path):
    message, path = broken(tmp_path, lambda text: text.replace("[0.5, 0.6, 1.0]", "[0.5, 0.6, 0.0]"))
    assert f"line {line_of(path, 'chair')}" in message
    assert "above 0" in message


def test_a_frame_that_shows_an_unknown_object_is_named(tmp_path):
    message, path = broken(tmp_path, lambda text: text.replace("[[3, 12,", "[[5, 12,"))
    assert f"line {line_of(path, '[[5, 12,')}, frames[1]" in message
    assert "object 5" in message


def test_a_file_cut_short_is_named_with_its_line(tmp_path):
    message, path = broken(tmp_path, lambda text: text[: text.index("polygon")])
    assert f"broken.json, line {len(path.read_text().splitlines())}" in message


def test_another_format_and_a_missing_file_are_named(tmp_path):
    message, _ = broken(tmp_path, lambda text: json.dumps({"format": "other"}))
    assert "not a scene file" in message
    with pytest.raises(SourceError, match="nowhere"):
        read_scene(tmp_path / "nowhere.json")


def test_ids_must_be_unique():
    box = OrientedBox(np.zeros(3), np.ones(3), 0.0)
    with pytest.raises(ConfigurationError, match="unique"):
        SceneAnnotation("x", (SceneObject(1, "a", box), SceneObject(1, "b", box)), ())


def test_area_and_inside_of_an_l_shaped_room_agree_with_sampling():
    angle = 0.6
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    room = SceneRoom("l", scene().rooms[0].polygon_m @ turn.T)
    assert room.area_m2 == pytest.approx(16.0)
    points = np.random.default_rng(0).uniform(-6, 6, (20000, 2))
    back = points @ turn
    expected = (back > 0).all(1) & (back[:, 0] < 4) & (back[:, 1] < 5) & ~((back[:, 0] > 2) & (back[:, 1] > 3))
    assert np.array_equal(room.contains(points), expected)


def test_the_pixels_of_a_whole_box_are_its_silhouette():
    box = OrientedBox(np.array([0.4, -0.2, 5.0]), np.array([1.0, 0.7, 0.8]), 0.8)
    k = np.array([[400.0, 0, 150], [0, 420.0, 100], [0, 0, 1]])
    pose = np.eye(4)[None]
    v, u = np.mgrid[0:200, 0:300]
    rays = np.stack([(u - 150) / 400, (v - 100) / 420, np.ones_like(u, float)], -1)
    inside = np.zeros(u.shape, bool)
    for z in np.linspace(4.5, 5.5, 160):
        inside |= box.contains((rays * z).reshape(-1, 3)).reshape(u.shape)
    assert box_pixels([box], pose, k)[0, 0] == pytest.approx(inside.sum(), rel=0.03)
    behind = OrientedBox(np.array([0, 0, -0.2]), np.ones(3), 0.0)
    assert box_pixels([behind], pose, k)[0, 0] == np.inf
