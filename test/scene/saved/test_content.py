"""One scene restored from what another one knows."""

from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.errors import FrameRejectedError, StorageError

S = 1_000_000_000


def known(scene):
    """All that is to be seen of a scene but for its epoch."""
    snapshot, status = scene.snapshot, scene.status()
    records = [(p.stamp_ns, p.is_keyframe, p.scene_from_cam.tolist(), p.fine_keys.tolist()) for p in snapshot.placed]
    return (
        replace(snapshot.selection, epoch=0),
        records,
        (snapshot.fine_voxel_size, snapshot.level),
        (status.ring_frames, status.keyframes, status.pixel_bytes, status.scale_source),
    )


def test_a_restored_scene_is_known_as_it_was_and_is_a_new_epoch(seen, make_scene, make_frame, show):
    other = make_scene()
    show(other, map(make_frame, (100, 101)))
    assert other.restore(seen.content(), "test") == 1
    assert known(other) == known(seen)
    assert (other.epoch, other.snapshot.selection.epoch) == (1, 1)
    assert [f.stamp_ns for f in other.snapshot.evidence.frames] == list(seen.snapshot.selection.stamps_ns)


@pytest.mark.parametrize("pause", [1, 3600 * 24])
def test_later_frames_are_added_as_if_nothing_had_been_in_between(seen, make_scene, make_frame, show, pause):
    other = make_scene()
    other.restore(seen.content(), "test")
    later = [make_frame(29 + pause + 2 * i) for i in range(17)]
    for frame in later:
        show(other, [frame])
        show(seen, [frame])
        assert known(other) == known(seen)
    assert other.epoch == 1
    assert [a.frame.stamp_ns for a in other.content().anchors] == [a.frame.stamp_ns for a in seen.content().anchors]


@pytest.mark.parametrize("start", [0.4, 3.15, 28.6, 28.9])
def test_a_clock_behind_the_one_of_the_scene_ends_nothing(seen, make_scene, make_frame, show, start):
    other = make_scene()
    other.restore(seen.content(), "test")
    before = {p.stamp_ns for p in other.snapshot.placed}
    new = [make_frame(start + 0.27 * i) for i in range(3)]
    show(other, new)
    assert other.epoch == 1
    now = {p.stamp_ns for p in other.snapshot.placed}
    assert {f.stamp_ns for f in new} <= now
    assert now & before
    assert other.status().newest_stamp_ns == new[-1].stamp_ns
    show(other, [make_frame(start + 1 + 0.41 * i) for i in range(30)])
    status = other.status()
    assert (other.epoch, status.ring_frames, status.keyframes, status.counts.get("stamp", 0)) == (1, 8, 5, 0)


def test_with_a_clock_behind_the_scene_its_frames_leave_the_ring_and_the_best_stay_as_keyframes(
    seen, make_scene, make_frame, show
):
    other = make_scene()
    other.restore(seen.content(), "test")
    covered = seen.snapshot.selection.covered_voxels
    show(other, [make_frame(0.5)])
    assert {(p.stamp_ns == S // 2, p.is_keyframe) for p in other.snapshot.placed} == {(True, False), (False, True)}
    assert (other.status().ring_frames, other.status().keyframes) == (1, 5)
    assert other.snapshot.selection.covered_voxels >= covered  # what the greedy method picks first is dropped last


def test_a_stamp_of_the_loaded_scene_is_refused_as_a_frame_has_one_name(seen, make_scene, make_frame):
    other = make_scene()
    other.restore(seen.content(), "test")
    held = other.snapshot.placed[0].stamp_ns
    assert not other.queue.admits(held)
    with pytest.raises(FrameRejectedError, match="loaded scene"):
        other.add(make_frame(held / S))
    assert other.queue.admits(held + 1)


def test_a_jump_back_of_the_new_clock_ends_the_loaded_scene_with_the_rest(seen, make_scene, make_frame, show):
    other = make_scene()
    other.restore(seen.content(), "test")
    show(other, [make_frame(50), make_frame(40)])
    assert (other.epoch, [p.stamp_ns for p in other.snapshot.placed]) == (2, [40 * S])
    show(other, [make_frame(41)])  # and its stamps are free again
    held = seen.snapshot.placed[0].stamp_ns
    other.queue.start_epoch("test")
    assert other.queue.admits(held)


def test_no_frame_counts_as_arrived_until_the_camera_sends_one(seen, make_scene, make_frame, show):
    other = make_scene()
    show(other, [make_frame(5)])
    other.add(make_frame(6))
    other.restore(seen.content(), "test")
    status = other.status()
    assert (status.newest_stamp_ns, status.pending, status.counts["epoch"]) == (0, 0, 1)


def test_frames_that_wait_are_not_part_of_the_content(seen, make_frame):
    seen.add(make_frame(40))
    seen.add(make_frame(41))
    content = seen.content()
    assert content.waiting == 2
    assert max(f.stamp_ns for f in content.frames) == 29 * S
    assert seen.pending == 2


def test_frames_without_a_place_go_along_and_still_fill_up(make_scene, make_frame, show):
    class Blind(FakeGeometryEncoder):
        def encode(self, frames, anchors):
            geometries = super().encode(frames, anchors)
            for frame, geometry in zip(frames, geometries, strict=True):
                if frame.stamp_ns > 2 * S:
                    geometry.confidence[:] = 0
            return geometries

    scene = make_scene(Blind(window_size=1))
    show(scene, map(make_frame, range(1, 6)))
    other = make_scene()
    other.restore(scene.content(), "test")
    assert other.snapshot.selection.stamps_ns == scene.snapshot.selection.stamps_ns
    assert len(other.snapshot.selection.stamps_ns) == 4


def test_a_scene_without_any_geometry_is_restored_too(make_scene, make_frame):
    class Broken(FakeGeometryEncoder):
        def encode(self, frames, anchors):
            for frame in frames:
                del frame
            return []

    scene = make_scene(Broken(window_size=1))
    for t in range(1, 8):
        scene.add(make_frame(t))
    scene.process()
    other = make_scene()
    other.restore(scene.content(), "test")
    assert other.snapshot.selection.stamps_ns == scene.snapshot.selection.stamps_ns != ()
    assert other.snapshot.selection.scale_source is None


def test_an_encoder_that_chooses_per_epoch_is_told(seen, make_scene):
    class Choosing(FakeGeometryEncoder):
        told = 0

        def forget_choice(self):
            self.told += 1

    encoder = Choosing()
    make_scene(encoder).restore(seen.content(), "test")
    assert encoder.told == 1


# What does not fit, F3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ring_frames": 7}, "buffer.capacity is 7; set that to 8"),
        ({"keyframes": 4}, "buffer.keyframe_capacity is 4; set that to 5"),
        ({"ring_bytes": 8 * 1680 - 1}, "buffer.max_bytes is 13439; set that to 13440"),
        ({"keyframe_bytes": 100}, "buffer.keyframe_max_bytes is 100; set that to 8400"),
    ],
)
def test_a_scene_that_exceeds_the_bounds_is_refused_with_the_setting_and_the_least_value(
    seen, make_scene, make_frame, show, changes, named
):
    other = make_scene(**changes)
    show(other, map(make_frame, (1, 2)))
    before = known(other)
    with pytest.raises(StorageError, match=named) as caught:
        other.restore(seen.content(), "test")
    assert caught.value.cause == "settings"
    assert (known(other), other.epoch) == (before, 0)


def test_another_voxel_size_is_refused_for_metres_and_does_not_matter_for_relative_lengths(
    make_scene, make_frame, show
):
    metric, relative = make_scene(scale=ScaleSource.TF, voxel_size_m=0.05), make_scene(voxel_size_m=0.05)
    for scene in (metric, relative):
        show(scene, map(make_frame, (1, 2)))
    with pytest.raises(StorageError, match=r"finest voxel is 0\.05 m and selection\.voxel_size_m is 0\.02"):
        make_scene(scale=ScaleSource.TF).restore(metric.content(), "test")
    other = make_scene()
    other.restore(relative.content(), "test")
    assert known(other) == known(relative)


@pytest.mark.parametrize("changed", [{"height": 21}, {"camera": "other"}])
def test_another_camera_is_refused_where_no_pose_ties_it_to_the_scene(seen, make_scene, make_frame, show, changed):
    without, posed = make_scene(), make_scene()
    show(without, [make_frame(3, **changed)])
    show(posed, [make_frame(3, posed=True, **changed)])
    with pytest.raises(StorageError, match="28x20 'cam' and the present one is"):
        without.restore(seen.content(), "test")
    posed.restore(seen.content(), "test")
    assert len(posed.snapshot.placed) == 13


def test_what_was_loaded_before_does_not_decide_which_camera_runs(seen, make_scene, make_frame, show):
    wider, running = make_scene(), make_scene()
    show(wider, [make_frame(3, width=34)])
    running.restore(wider.content(), "test")
    assert running.restore(seen.content(), "test") == 2
    show(running, [make_frame(50, width=34)])  # the camera is another one after all, and has no pose
    assert (running.epoch, len(running.snapshot.placed)) == (3, 1)


def test_keyframes_without_a_ring_are_taken_over_too(seen, make_scene, make_frame, show):
    behind, other = make_scene(), make_scene()
    behind.restore(seen.content(), "test")
    behind.add(make_frame(0.5))  # their ring is given up, and the new frame waits for the encoder
    content = behind.content()
    assert (len(content.keyframes), content.ring, content.waiting) == (5, [], 1)
    other.restore(content, "test")
    assert other.snapshot.selection.stamps_ns == behind.snapshot.selection.stamps_ns
    show(other, [make_frame(0.5)])
    assert (other.epoch, len(other.snapshot.placed)) == (1, 6)


def test_a_scene_is_not_restored_from_nothing(make_scene, make_frame, show):
    scene = make_scene()
    show(scene, [make_frame(1)])
    with pytest.raises(StorageError, match="holds no frame"):
        scene.restore(make_scene().content(), "test")
    assert len(scene.snapshot.placed) == 1


def test_an_encoder_that_needs_anchors_refuses_a_scene_that_has_none(make_scene, make_frame, show):
    scene = make_scene(FakeGeometryEncoder(window_size=1, anchor_count=0))
    show(scene, [make_frame(1)])
    with pytest.raises(StorageError, match="holds no anchors"):
        make_scene().restore(scene.content(), "test")
    other = make_scene(FakeGeometryEncoder(window_size=1, anchor_count=0))
    other.restore(scene.content(), "test")
    assert np.array_equal(other.snapshot.placed[0].fine_keys, scene.snapshot.placed[0].fine_keys)


@pytest.mark.parametrize(("anchor_count", "kept"), [(0, []), (1, [29]), (2, [28, 29]), (5, [28, 29])])
def test_as_many_anchors_are_kept_as_the_encoder_takes(seen, make_scene, anchor_count, kept):
    other = make_scene(FakeGeometryEncoder(window_size=1, anchor_count=anchor_count))
    other.restore(seen.content(), "test")
    assert [a.frame.stamp_ns // S for a in other.content().anchors] == kept
