"""Scenes saved and loaded: the same evidence, exact geometry, and damage refused without harm to the running scene."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from os import kill

import cv2
import numpy as np
import pytest

from spatial_mllm_ros.encoders.auto import AutoGeometryEncoder
from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import StorageError
from spatial_mllm_ros.scene.saved import folder as saved_folder
from spatial_mllm_ros.scene.saved.save_load import SceneOrigin, default_root, load_scene, read_scene, save_scene
from spatial_mllm_ros.storage import manifest_of

S = 1_000_000_000


def known(scene):
    snapshot = scene.snapshot
    records = [(p.stamp_ns, p.is_keyframe, p.scene_from_cam.tobytes(), p.intrinsics) for p in snapshot.placed]
    keys = [p.fine_keys.tobytes() for p in snapshot.placed]
    grid = snapshot.fine_voxel_size, snapshot.level
    return replace(snapshot.selection, epoch=0), records, keys, grid, scene.status().pixel_bytes


@pytest.fixture
def room(seen, tmp_path):
    save_scene(seen, tmp_path / "room")
    return tmp_path / "room"


def test_a_loaded_scene_gives_the_same_evidence_and_the_same_voxels(seen, room, make_scene, make_frame, show):
    running = make_scene()
    show(running, map(make_frame, (200, 201)))
    saved, epoch = load_scene(running, room)
    assert known(running) == known(seen)
    assert epoch == running.epoch == running.snapshot.selection.epoch == 1
    assert [f.stamp_ns for f in running.snapshot.evidence.frames] == list(seen.snapshot.selection.stamps_ns)
    assert replace(saved.selection, epoch=0) == replace(seen.snapshot.selection, epoch=0)


def test_frames_after_a_load_are_placed_as_they_would_have_been_without_it(seen, room, make_scene, make_frame, show):
    running = make_scene()
    load_scene(running, room)
    for t in range(40, 58):
        show(running, [make_frame(t)])
        show(seen, [make_frame(t)])
        assert known(running) == known(seen)


def test_a_scene_that_was_loaded_can_be_saved_and_loaded_again(room, make_scene, make_frame, show):
    first, second = make_scene(), make_scene()
    load_scene(first, room)
    show(first, [make_frame(2.5)])  # a clock behind that of the scene
    saved = save_scene(first, room)
    load_scene(second, room)
    assert known(second) == known(first)
    assert (saved.ring_frames, saved.keyframes) == (1, 5)


def test_pictures_come_back_nearly_and_all_else_of_a_frame_exactly(make_scene, make_frame, show, tmp_path):
    scene = make_scene(SensorDepthEncoder(pixel_stride=1))
    frames = [make_frame(t, posed=True, depth=True) for t in (1, 2)]
    millimetres = np.rint(frames[1].depth_m * 1000).astype(np.float32) / np.float32(1000)
    millimetres[0, :3] = 65.534, 65.536, 80.0
    frames[1] = replace(frames[1], depth_m=millimetres)
    show(scene, frames)
    save_scene(scene, tmp_path / "room")
    _, content = read_scene(tmp_path / "room")
    for before, after in zip(frames, content.frames, strict=True):
        assert cv2.PSNR(before.rgb, after.rgb) > 30
        assert (after.stamp_ns, after.camera_frame_id, after.intrinsics) == (before.stamp_ns, "cam", before.intrinsics)
        assert after.scene_from_cam.tobytes() == before.scene_from_cam.tobytes()
        assert after.nbytes == before.nbytes
    first, second = (frame.depth_m for frame in content.frames)
    assert np.nanmax(np.abs(first - frames[0].depth_m)) <= 0.000501
    assert np.array_equal(np.isnan(first), np.isnan(frames[0].depth_m))
    assert np.isnan(second[0, 1:3]).all()  # beyond what 16 bits of millimetres hold
    second[0, 1:3] = millimetres[0, 1:3]
    assert np.array_equal(second, millimetres, equal_nan=True)


def test_point_maps_of_the_anchors_come_back_bit_by_bit_also_of_frames_that_are_not_held(
    make_scene, make_frame, show, tmp_path
):
    scene = make_scene(FakeGeometryEncoder(6, 10, window_size=1, anchor_count=2), ring_frames=1, keyframes=0)
    show(scene, map(make_frame, (1, 3)))
    content = scene.content()
    assert [a.frame.stamp_ns // S for a in content.anchors] == [1, 3]
    assert [f.stamp_ns // S for f in content.frames] == [3]
    save_scene(scene, tmp_path / "room")
    _, loaded = read_scene(tmp_path / "room")
    for before, after in zip(content.anchors, loaded.anchors, strict=True):
        for name in ("points_scene", "confidence", "scene_from_cam"):
            one, other = (getattr(a.geometry, name) for a in (before, after))
            assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
        assert after.geometry.intrinsics == before.geometry.intrinsics
        assert np.array_equal(after.fine_keys, before.fine_keys)
    assert [f.stamp_ns for f in loaded.frames] == [3 * S]


def test_what_waits_for_the_encoder_is_left_out_and_its_number_told(seen, make_frame, tmp_path):
    seen.add(make_frame(40))
    assert save_scene(seen, tmp_path / "room").waiting == 1
    assert read_scene(tmp_path / "room")[0].waiting == 1
    assert seen.pending == 1


def test_an_empty_scene_is_not_saved_and_does_not_take_the_place_of_an_earlier_one(room, make_scene):
    with pytest.raises(StorageError, match="holds no frame yet") as caught:
        save_scene(make_scene(), room)
    assert caught.value.cause == "empty"
    assert read_scene(room)[0].frames == 13


def test_what_a_folder_holds_is_told(make_scene, make_frame, show, tmp_path):
    scene = make_scene(scale=ScaleSource.TF, ring_frames=2)
    show(scene, [make_frame(t, posed=True, height=20 + t % 2) for t in range(1, 6)])
    saved = save_scene(scene, tmp_path / "room", origin=SceneOrigin("map", True))
    again, _ = read_scene(tmp_path / "room")
    assert saved == again
    assert (again.ring_frames, again.keyframes, again.frames) == (2, 3, 5)
    assert (again.first_stamp_ns, again.last_stamp_ns) == (S, 5 * S)
    assert again.image_sizes_px == ((28, 20), (28, 21))
    assert (again.posed_frames, again.depth_frames, again.encoder) == (5, 0, "fake")
    assert again.origin == SceneOrigin("map", True)
    assert again.selection == scene.snapshot.selection
    assert again.pixel_bytes == scene.status().pixel_bytes
    on_disk = {p.name: p.stat().st_size for p in (tmp_path / "room").iterdir()}
    assert again.nbytes == sum(on_disk.values())
    assert again.files.keys() == on_disk.keys() - {"manifest.json"}


def test_scenes_lie_in_the_state_folder_of_the_user_unless_told_otherwise(monkeypatch, tmp_path, seen):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "spatial_mllm_ros" / "scenes"
    save_scene(seen, default_root() / "room", root=default_root())
    assert default_root().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_root() == tmp_path / "home" / ".local" / "state" / "spatial_mllm_ros" / "scenes"


def test_nothing_is_read_or_written_outside_the_root(seen, room, tmp_path, make_scene):
    root = tmp_path / "root"
    with pytest.raises(StorageError, match="does not lie below"):
        save_scene(seen, tmp_path / "other", root=root)
    assert not (tmp_path / "other").exists()
    with pytest.raises(StorageError, match="does not lie below"):
        load_scene(make_scene(), room, root=root)
    with pytest.raises(StorageError, match="no scene has been saved there yet"):
        load_scene(make_scene(), tmp_path / "no_root" / "room", root=tmp_path / "no_root")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be made"):
        save_scene(seen, tmp_path / "file" / "room", root=tmp_path / "file")


# Damage: the running scene is as it was


def rewritten(room, change):
    """The saved scene with its manifest changed by somebody who knows how to seal it."""
    manifest = json.loads((room / "manifest.json").read_bytes())
    del manifest["sha256"]
    change(manifest)
    (room / "manifest.json").write_bytes(saved_folder._sealed(manifest))


def set_in(*path, value):
    def change(manifest):
        *way, last = path
        for step in way:
            manifest = manifest[step]
        manifest[last] = value

    return change


NAN_POSE = [[float("nan")] * 4] * 4


@pytest.mark.parametrize(
    "change",
    [
        set_in("scene", value=None),
        set_in("scene", "frames", value={}),
        set_in("scene", "frames", 0, "stamp_ns", value="../../etc/passwd"),
        set_in("scene", "frames", 0, "stamp_ns", value=-5),
        set_in("scene", "frames", 0, "stamp_ns", value=1e300),
        set_in("scene", "frames", 0, "stamp_ns", value=29 * S),
        set_in("scene", "frames", 0, "height_px", value=21),
        set_in("scene", "frames", 0, "width_px", value=1 << 70),
        set_in("scene", "frames", 0, "camera_frame_id", value=["cam"]),
        set_in("scene", "frames", 0, "role", value="king"),
        set_in("scene", "frames", 0, "role", value="ring"),
        set_in("scene", "frames", -1, "role", value="keyframe"),
        set_in("scene", "frames", 0, "depth_px", value=[10, 14]),
        set_in("scene", "frames", 0, "intrinsics", "fx_px", value=-1.0),
        set_in("scene", "frames", 0, "intrinsics", "evil", value=1),
        set_in("scene", "frames", 0, "scene_from_cam", value=NAN_POSE),
        set_in("scene", "frames", 0, "placed", "scene_from_cam", value=NAN_POSE),
        set_in("scene", "frames", 0, "placed", "scene_from_cam", value=[[1, 2], [3]]),
        set_in("scene", "frames", 0, "placed", "scale_source", value="guess"),
        set_in("scene", "frames", 0, "placed", "scale_source", value="depth"),
        set_in("scene", "frames", 0, "placed", "voxels", value=7),
        set_in("scene", "frames", 0, "placed", "voxels", value=-1),
        set_in("scene", "frames", 0, "placed", value=None),
        set_in("scene", "grid", value=None),
        set_in("scene", "grid", "voxel_size", value=0.0),
        set_in("scene", "grid", "voxel_size", value=float("inf")),
        set_in("scene", "grid", "level", value=400),
        set_in("scene", "grid", "level", value=True),
        set_in("scene", "scale_source", value=None),
        set_in("scene", "anchors", 0, "stamp_ns", value=77),
        set_in("scene", "anchors", 0, "map_px", value=[1 << 40, 1 << 40]),
        set_in("scene", "newest_placed_ns", value="now"),
        set_in("settings", "selected_frames", value="many"),
        set_in("settings", value=[1]),
        set_in("origin", value=[]),
        set_in("waiting", value=None),
    ],
)
def test_a_manifest_that_is_sealed_and_wrong_is_refused_and_changes_nothing(room, make_scene, make_frame, show, change):
    running = make_scene()
    show(running, map(make_frame, (1, 2)))
    running.add(make_frame(3))
    before = known(running), running.epoch, running.pending
    rewritten(room, change)
    with pytest.raises(StorageError) as caught:
        load_scene(running, room)
    assert caught.value.cause in ("tampered", "settings", "truncated", "missing")
    assert re.search(r"[Uu]se another copy|save the scene again|set that|raise them", str(caught.value))
    assert (known(running), running.epoch, running.pending) == before


@pytest.mark.parametrize("kind", ["image", "points", "confidence", "voxels"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"\xff\xd8\xff\xd9", b"\x80\x04cos\nsystem\n."])
def test_a_file_with_other_contents_and_a_matching_hash_is_refused_without_being_run(room, make_scene, kind, content):
    name = sorted(p.name for p in room.iterdir() if p.name.startswith(kind))[0]
    (room / name).write_bytes(content)
    rewritten(room, lambda manifest: manifest["files"].update(manifest_of(room, [name])))
    running = make_scene()
    with pytest.raises(StorageError) as caught:
        load_scene(running, room)
    assert caught.value.cause == "tampered"
    assert running.status().ring_frames == 0


def test_pickled_voxels_are_refused_without_being_unpickled(room, make_scene):
    np.save(room / "voxels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    rewritten(room, lambda m: m["files"].update(manifest_of(room, ["voxels.npy"])))
    with pytest.raises(StorageError, match=r"voxels\.npy is not an array of int64"):
        load_scene(make_scene(), room)


def test_pictures_larger_than_the_buffers_are_refused_before_they_are_decoded(room, make_scene, monkeypatch):
    monkeypatch.setattr("spatial_mllm_ros.scene.saved.format.decode_compressed_color", None)
    with pytest.raises(StorageError, match=r"needs 21840 bytes of pixels .* allow 20000; raise them") as caught:
        load_scene(make_scene(ring_bytes=10_000, keyframe_bytes=10_000), room)
    assert caught.value.cause == "settings"


def test_every_file_is_needed(room, make_scene):
    for path in sorted(room.iterdir()):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(StorageError, match=re.escape(path.name)) as caught:
            load_scene(make_scene(), room)
        assert caught.value.cause == "missing"
        path.write_bytes(content)
    load_scene(make_scene(), room)


# Another run: F9, F25


def test_poses_of_another_frame_of_reference_are_refused(make_scene, make_frame, show, tmp_path):
    scene = make_scene(scale=ScaleSource.TF)
    show(scene, [make_frame(t, posed=True) for t in (1, 2)])
    save_scene(scene, tmp_path / "room", origin=SceneOrigin("map"))
    with pytest.raises(StorageError, match="lies in the frame 'map' and this run's scene_frame is 'odom'") as caught:
        load_scene(make_scene(), tmp_path / "room", origin=SceneOrigin("odom"))
    assert caught.value.cause == "settings"
    load_scene(make_scene(), tmp_path / "room", origin=SceneOrigin("map"))
    load_scene(make_scene(), tmp_path / "room")


def test_the_frame_of_reference_does_not_matter_without_poses(seen, make_scene, tmp_path):
    save_scene(seen, tmp_path / "room", origin=SceneOrigin("map"))
    load_scene(make_scene(), tmp_path / "room", origin=SceneOrigin("odom"))


def test_a_scene_that_nothing_measured_is_refused_where_this_run_measures(room, make_scene):
    with pytest.raises(StorageError, match=r"Nothing measured the saved scene .*'model'.* this run measures"):
        load_scene(make_scene(), room, origin=SceneOrigin("odom", measures=True))
    load_scene(make_scene(), room, origin=SceneOrigin("odom", measures=False))


def test_the_encoder_of_a_measured_scene_is_chosen_by_the_frames_of_the_new_run(make_scene, make_frame, show, tmp_path):
    def auto():
        return AutoGeometryEncoder(SensorDepthEncoder(), lambda: FakeGeometryEncoder(scale_source=ScaleSource.TF))

    scene = make_scene(auto())
    show(scene, [make_frame(t, posed=True, depth=True) for t in range(1, 4)])
    save_scene(scene, tmp_path / "room")
    encoder = auto()
    running = make_scene(encoder)
    show(running, [make_frame(7)])  # without depth: VGGT
    load_scene(running, tmp_path / "room")
    show(running, [make_frame(9, posed=True, depth=True)])
    assert encoder.name == "auto(sensor-depth)"
    assert [p.scale_source for p in running.snapshot.placed] == [ScaleSource.DEPTH] * 4
    assert "scale" not in running.status().counts


def test_frames_with_depth_join_a_scene_without_metres_in_its_own_unit(room, make_scene, make_frame, show):
    encoder = AutoGeometryEncoder(SensorDepthEncoder(), FakeGeometryEncoder)
    running = make_scene(encoder)
    load_scene(running, room)
    show(running, [make_frame(50, posed=True, depth=True)])
    assert encoder.name == "auto(fake)"
    assert running.snapshot.placed[-1].scale_source is ScaleSource.MODEL


# A process that is killed, F13

_SAVER = """
import os, signal, sys
import numpy as np
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.saved.save_load import save_scene

scene = Scene(SceneConfig(rate_hz=0.0, ring_frames=2), FakeGeometryEncoder(4, 6, window_size=1, anchor_count=1))
for t in range(101, 104):
    scene.add(Frame(t * 10**9, np.full((8, 12, 3), t, np.uint8)))
    scene.process()
events = 0

def hook(event, arguments):
    global events
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        events += 1
        if events == stop_before:
            print(f"reached {os.getpid()} {event}", flush=True)
            while True:
                signal.pause()

for line in sys.stdin:
    stop_before = int(line)
    child = os.fork()
    if child == 0:
        sys.addaudithook(hook)
        save_scene(scene, sys.argv[1])
        print("finished", flush=True)
        os._exit(0)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.parametrize("earlier", [True, False], ids=["replacing", "first"])
def test_a_process_killed_at_any_moment_of_saving_leaves_the_earlier_or_the_new_scene_whole(
    make_scene, make_frame, show, tmp_path, earlier
):
    place, seen = tmp_path / "room", make_scene()
    show(seen, map(make_frame, (1, 2)))
    old, new = {f.stamp_ns for f in seen.content().frames}, {t * S for t in (101, 102, 103)}
    saver = subprocess.Popen(
        [sys.executable, "-c", _SAVER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    found = []
    with saver:
        for moment in range(1, 1000):
            if earlier:
                save_scene(seen, place)  # also over whatever the killed one left behind
                assert [p.name for p in tmp_path.iterdir()] == ["room"]
            saver.stdin.write(f"{moment}\n")
            saver.stdin.flush()
            reached = saver.stdout.readline().split()
            if reached == ["finished"]:
                break
            kill(int(reached[1]), signal.SIGKILL)
            assert saver.stdout.readline().split() == ["ended", str(int(signal.SIGKILL))]
            try:
                found.append(({f.stamp_ns for f in read_scene(place)[1].frames}, reached[2]))
            except StorageError as error:
                found.append((error.cause, reached[2]))
        saver.stdin.close()
    before = old if earlier else "missing"
    states = [state for state, _ in found]
    turn = next(i for i, state in enumerate(states) if state != before)
    assert states == [before] * turn + [new] * (len(states) - turn)
    assert [event for _, event in found].count("os.rename") == (2 if earlier else 1)
    assert len(found) > 12
    if not earlier:
        save_scene(seen, place)
        assert [p.name for p in tmp_path.iterdir()] == ["room"]


_FULL_DISK = """
import sys
from pathlib import Path
import numpy as np
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.errors import StorageError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.saved.save_load import read_scene, save_scene

root = Path(sys.argv[1])
rng = np.random.default_rng(0)

def scene(frames):
    made = Scene(SceneConfig(rate_hz=0.0), FakeGeometryEncoder(4, 6, window_size=1, anchor_count=1))
    for t in range(1, 1 + frames):
        made.add(Frame(t * 10**9, rng.integers(0, 256, (60, 84, 3), dtype=np.uint8)))
        made.process()
    return made

save_scene(scene(2), root / "room")
try:
    save_scene(scene(60), root / "room")
except StorageError as error:
    print(error.cause, error)
print([p.name for p in root.iterdir()], read_scene(root / "room")[0].frames)
"""


def test_a_full_disk_is_a_sentence_and_leaves_the_earlier_scene(tmp_path):
    command = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=200k none "$1" && exec "$2" -c "$3" "$1"', "sh"]
    done = subprocess.run(
        [*command, str(tmp_path), sys.executable, _FULL_DISK], capture_output=True, text=True, timeout=60
    )
    if done.returncode and "_scene" not in done.stderr:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()[:200]}")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("disk "), done.stderr
    assert "the disk is full" in lines[0]
    assert "Free some space" in lines[0]
    assert lines[1] == "['room'] 2"


def test_how_much_of_a_frame_newer_ones_contradict_is_kept(seen, make_scene, tmp_path):
    content = seen.content()
    marked = replace(content, placed=tuple(replace(p, contradicted_voxels=i) for i, p in enumerate(content.placed)))
    running = make_scene()
    running.restore(marked, "test")
    save_scene(running, tmp_path / "room")
    assert [p.contradicted_voxels for p in read_scene(tmp_path / "room")[1].placed] == list(range(13))
