import json
import struct

import numpy as np
import pytest

from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.scene_questions.builder import candidate_questions
from spatial_mllm_ros.scene_questions.scannet import load_scannet_scene

ANGLE = 0.5
ALIGN = np.eye(4)
ALIGN[:2, :2] = [[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]]
ALIGN[:3, 3] = (1.0, -2.0, 0.1)
# Aligned boxes: low corner, high corner.
THINGS = {
    "floor": ((0, 0, 0), (5, 4, 0.01)),
    "chair": ((1, 1, 0), (1.5, 1.6, 0.9)),
    "table": ((3, 1, 0), (4.4, 1.9, 0.75)),
    "wall": ((0, 0, 0), (0.1, 4, 2.5)),
}


def write_scan(root, *, ascii_mesh=False, name="scene0001_00"):
    folder = root / name
    folder.mkdir()
    rng = np.random.default_rng(2)
    vertices, segments, groups = [], [], []
    for number, (label, (low, high)) in enumerate(THINGS.items()):
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        points = np.concatenate([corners, rng.uniform(low, high, (20, 3))])
        vertices.append(points)
        segments += [100 + 2 * number + i % 2 for i in range(len(points))]
        groups.append(
            {"id": number, "objectId": number, "label": label, "segments": [100 + 2 * number, 101 + 2 * number]}
        )
    aligned = np.concatenate(vertices)
    raw = (aligned - ALIGN[:3, 3]) @ ALIGN[:3, :3]  # the scanner's own frame
    form = "ascii" if ascii_mesh else "binary_little_endian"
    header = f"ply\nformat {form} 1.0\nelement vertex {len(raw)}\n" + "".join(
        f"property {kind} {axis}\n"
        for kind, axis in (("float", "x"), ("float", "y"), ("float", "z"), ("uchar", "red"), ("uchar", "alpha"))
    )
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    if ascii_mesh:
        body = "".join(f"{x:.6f} {y:.6f} {z:.6f} 9 255\n" for x, y, z in raw) + "3 0 1 2\n"
        data = (header + body).encode()
    else:
        data = header.encode() + b"".join(struct.pack("<fffBB", *p, 9, 255) for p in raw)
        data += struct.pack("<Biii", 3, 0, 1, 2)
    (folder / f"{name}_vh_clean_2.ply").write_bytes(data)
    (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": segments}))
    (folder / f"{name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    numbers = " ".join(f"{v:.8f}" for v in ALIGN.reshape(-1))
    (folder / f"{name}.txt").write_text(f"appVersion = 1\naxisAlignment = {numbers} \ncolorHeight = 968\n")
    return folder


@pytest.mark.parametrize("ascii_mesh", [False, True])
def test_boxes_and_room_are_those_of_the_aligned_scan(tmp_path, ascii_mesh):
    scene = load_scannet_scene(write_scan(tmp_path, ascii_mesh=ascii_mesh))
    assert [(thing.id, thing.label) for thing in scene.objects] == [(2, "chair"), (3, "table")]
    for thing in scene.objects:
        low, high = map(np.array, THINGS[thing.label])
        assert np.allclose(thing.box.centre_m, (low + high) / 2, atol=1e-4)
        assert np.allclose(thing.box.size_m, high - low, atol=1e-4)
    assert scene.rooms[0].area_m2 == pytest.approx(20.0, abs=1e-3)
    assert scene.visibility is None


def test_questions_are_built_from_a_scan_as_from_a_generated_room(tmp_path):
    scene = load_scannet_scene(write_scan(tmp_path))
    truths = {question.text: question.truth for question in candidate_questions(scene)}
    assert truths["How many chair(s) are in this room?"] == "1"
    assert any(text.startswith("Measuring") and truth == "1.5" for text, truth in truths.items())
    assert "20.0" in truths.values()


def test_all_missing_files_are_named_at_once(tmp_path):
    folder = write_scan(tmp_path)
    for path in (*folder.glob("*.ply"), *folder.glob("*.txt")):
        path.unlink()
    with pytest.raises(SourceError, match=r"scene0001_00_vh_clean_2\.ply, scene0001_00\.txt"):
        load_scannet_scene(folder)


def test_a_bad_alignment_is_named_with_its_line(tmp_path):
    folder = write_scan(tmp_path)
    (folder / "scene0001_00.txt").write_text("appVersion = 1\naxisAlignment = 1 0 0\n")
    with pytest.raises(SourceError, match=r"scene0001_00\.txt, line 2: axisAlignment"):
        load_scannet_scene(folder)


def test_damaged_json_is_named_with_its_line(tmp_path):
    folder = write_scan(tmp_path)
    (folder / "scene0001_00.aggregation.json").write_text('{"segGroups": [\n{"id": 1,\n')
    with pytest.raises(SourceError, match=r"aggregation\.json, line \d"):
        load_scannet_scene(folder)


def test_a_group_without_label_or_points_is_named(tmp_path):
    folder = write_scan(tmp_path)
    path = folder / "scene0001_00.aggregation.json"
    groups = json.loads(path.read_text())
    del groups["segGroups"][2]["label"]
    path.write_text(json.dumps(groups))
    with pytest.raises(SourceError, match=r"segGroups\[2\]: 'label'"):
        load_scannet_scene(folder)
    groups["segGroups"][2] |= {"label": "table", "segments": [999]}
    path.write_text(json.dumps(groups))
    with pytest.raises(SourceError, match="has no box"):
        load_scannet_scene(folder)


def test_segments_of_another_mesh_and_a_short_mesh_are_refused(tmp_path):
    folder = write_scan(tmp_path)
    segs = next(folder.glob("*.segs.json"))
    kept = segs.read_text()
    segs.write_text(json.dumps({"segIndices": [1, 2]}))
    with pytest.raises(SourceError, match="2 segIndices"):
        load_scannet_scene(folder)
    segs.write_text(kept)
    mesh = next(folder.glob("*.ply"))
    mesh.write_bytes(mesh.read_bytes()[:600])
    with pytest.raises(SourceError, match="cut short"):
        load_scannet_scene(folder)


def test_the_room_is_the_convex_hull_of_the_floor(tmp_path):
    (room,) = load_scannet_scene(write_scan(tmp_path)).rooms
    x, y = room.polygon_m.T
    assert (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 == pytest.approx(5 * 4, abs=1e-4)  # counter-clockwise
    assert room.contains(np.array([[0.1, 0.1], [4.9, 3.9], [5.1, 2.0], [2.0, -0.1]])).tolist() == [
        True,
        True,
        False,
        False,
    ]
