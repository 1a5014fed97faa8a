import gc
import threading

import numpy as np
import pytest

from spatial_mllm_ros.encoders.base import FrameGeometry, ScaleSource
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.errors import EncoderError, FrameRejectedError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.voxels import coarsen

S = 1_000_000_000
FRAME_BYTES = 4 * 6 * 3


def frame(seconds, height=4, width=6, camera="cam", pose=None):
    return Frame(round(seconds * S), np.zeros((height, width, 3), np.uint8), camera, scene_from_cam=pose)


def scene_of(encoder=None, **changes):
    values = {"rate_hz": 0.0, "ring_frames": 8, "keyframes": 4, "selected_frames": 4, **changes}
    return Scene(SceneConfig(**values), encoder or FakeGeometryEncoder())


def run(scene, times):
    for t in times:
        scene.add(frame(t))
        scene.process()


def shown_by(scene, stamps_ns):
    """How many voxels of the present grid the frames of these stamps see together."""
    known = scene.snapshot
    keys = [coarsen(p.fine_keys, known.level) for p in known.placed if p.stamp_ns in stamps_ns]
    return len(np.unique(np.concatenate(keys)))


class Scripted:
    """Places each frame at its stamp in seconds along x; fails or gives rubbish where told."""

    name = "scripted"

    def __init__(self, window_size=4, anchor_count=2, bad=(), scale=ScaleSource.MODEL):
        self.window_size, self.anchor_count = window_size, anchor_count
        self.bad, self.scale = set(bad), scale
        self.calls = []
        self.during = None

    def encode(self, frames, anchors):
        times = [f.stamp_ns // S for f in frames]
        self.calls.append((times, [a.frame.stamp_ns // S for a in anchors]))
        if self.during:
            self.during()
        if self.bad & set(times):
            raise EncoderError(f"Frame {sorted(self.bad & set(times))} is bad.")
        return [self.geometry(t) for t in times]

    def geometry(self, t):
        v, u = np.mgrid[:8, :12].astype(np.float32)
        points = np.stack([u / 4 + t, v / 4, (u * 3 + v * 5) % 7 / 2], axis=-1)
        pose = np.eye(4)
        pose[0, 3] = t
        return FrameGeometry(points, np.ones((8, 12), np.float32), pose, Intrinsics(9, 9, 5, 3, 12, 8), self.scale)


def test_the_selection_covers_more_than_frames_spread_over_time():
    scene = scene_of(ring_frames=40, selected_frames=5)
    # it looks at one place for long and then turns around quickly
    run(scene, [1 + 0.01 * i for i in range(30)] + [2 + 2 * i for i in range(10)])
    selection = scene.snapshot.selection
    stamps = [p.stamp_ns for p in scene.snapshot.placed]
    uniform = [stamps[i] for i in np.linspace(0, len(stamps) - 1, 5).round().astype(int)]
    assert list(selection.stamps_ns) == sorted(selection.stamps_ns)
    assert len(selection.stamps_ns) == len(selection.gains) == 5
    assert sum(selection.gains) == selection.covered_voxels == shown_by(scene, selection.stamps_ns)
    assert selection.covered_voxels > 1.2 * shown_by(scene, uniform)
    assert selection.total_voxels == shown_by(scene, stamps)


def test_the_result_does_not_depend_on_when_the_worker_ran_for_an_encoder_without_windows():
    often, seldom = scene_of(FakeGeometryEncoder(window_size=1)), scene_of(FakeGeometryEncoder(window_size=1))
    run(often, range(1, 8))
    for t in range(1, 8):
        seldom.add(frame(t))
    assert seldom.pending == 7
    assert seldom.process() == 7
    assert seldom.snapshot.selection == often.snapshot.selection


def test_windows_are_as_large_as_the_encoder_takes_and_carry_anchors():
    encoder = Scripted(window_size=3, anchor_count=2)
    scene = scene_of(encoder)
    for t in range(1, 8):
        scene.add(frame(t))
    assert scene.process(max_calls=2) == 6
    assert scene.pending == 1
    scene.process()
    assert [times for times, _ in encoder.calls] == [[1, 2, 3], [4, 5, 6], [7]]
    assert [anchors for _, anchors in encoder.calls] == [[], [3], [3, 6]]


def test_an_old_anchor_stays_while_the_view_is_still_the_same():
    encoder = Scripted(window_size=1, anchor_count=2)
    scene = scene_of(encoder)
    encoder.geometry = lambda t, still=encoder.geometry: still(0 if t < 6 else 50)
    run(scene, range(1, 9))
    assert [anchors for _, anchors in encoder.calls] == [[], [1], [1, 2], [1, 3], [1, 4], [1, 5], [5, 6], [6, 7]]


def test_a_snapshot_is_made_again_only_after_a_change():
    scene = scene_of()
    run(scene, [1, 2, 3])
    first = scene.snapshot
    scene.process()
    assert scene.snapshot is first
    run(scene, [4])
    assert scene.snapshot is not first


def test_a_frame_with_coverage_of_its_own_outlives_the_ring_and_one_without_does_not():
    encoder = Scripted(window_size=1)
    encoder.geometry = lambda t, still=encoder.geometry: still({1: 100, 2: 200}.get(t, 5))
    scene = scene_of(encoder, ring_frames=3)
    run(scene, range(1, 10))
    assert [(p.stamp_ns // S, p.is_keyframe) for p in scene.snapshot.placed] == [
        (1, True),
        (2, True),
        (7, False),
        (8, False),
        (9, False),
    ]
    assert scene.status().keyframes == 2
    assert {s // S for s in scene.snapshot.selection.stamps_ns} >= {1, 2}


def test_a_full_keyframe_store_lets_the_least_useful_frame_go():
    encoder = Scripted(window_size=1)
    still = encoder.geometry

    def geometry(t):
        seen = still({1: 100, 2: 200, 3: 200, 4: 300}.get(t, 5))
        if t == 3:
            seen.points_scene[0, :, 1] += 4  # but for one row, 3 sees what 2 sees
        return seen

    encoder.geometry = geometry
    scene = scene_of(encoder, ring_frames=2, keyframes=3)
    run(scene, range(1, 9))
    assert [p.stamp_ns // S for p in scene.snapshot.placed if p.is_keyframe] == [1, 2, 4]


def test_keyframes_are_bounded_in_bytes():
    scene = scene_of(Scripted(window_size=1), ring_frames=2, keyframes=100, keyframe_bytes=3 * FRAME_BYTES)
    run(scene, range(1, 30))
    status = scene.status()
    assert status.keyframes == 3
    assert status.pixel_bytes == 5 * FRAME_BYTES


def test_without_keyframes_only_the_ring_is_known():
    scene = scene_of(ring_frames=3, keyframes=0)
    run(scene, range(1, 10))
    assert [p.stamp_ns // S for p in scene.snapshot.placed] == [7, 8, 9]


def test_memory_does_not_grow_with_the_frames_seen():
    encoder = Scripted(window_size=1, anchor_count=0)
    scene = scene_of(encoder)
    sizes = []
    for t in range(1, 400):
        run(scene, [t * 7])
        sizes.append((scene.status().pixel_bytes, scene.status().index_bytes))
    assert max(sizes[200:]) <= tuple(1.05 * m for m in max(sizes[50:200]))


def test_point_maps_are_kept_of_anchors_only():
    encoder = Scripted(window_size=1, anchor_count=2)
    scene = scene_of(encoder)
    run(scene, range(1, 9))
    gc.collect()
    alive = [o for o in gc.get_objects() if isinstance(o, FrameGeometry)]
    assert len(alive) <= 2


def test_frames_that_leave_the_ring_unencoded_are_counted():
    scene = scene_of(ring_frames=3)
    for t in range(1, 6):
        scene.add(frame(t))
    assert scene.status().counts == {"unprocessed": 2}
    assert scene.pending == 3


def test_a_frame_that_left_the_ring_while_it_was_encoded_becomes_a_keyframe():
    encoder = Scripted(window_size=1)
    scene = scene_of(encoder, ring_frames=2)
    scene.add(frame(1))
    encoder.during = lambda: [scene.add(frame(t)) for t in (5, 6, 7)]
    scene.process(max_calls=1)
    assert [(p.stamp_ns // S, p.is_keyframe) for p in scene.snapshot.placed] == [(1, True)]


def test_a_bad_frame_does_not_cost_its_neighbours_and_the_worker_goes_on():
    scene = scene_of(Scripted(window_size=4, bad=[3]))
    for t in range(1, 7):
        scene.add(frame(t))
    assert scene.process() == 5
    status = scene.status()
    assert status.counts == {"encoder": 1}
    assert [p.stamp_ns // S for p in scene.snapshot.placed] == [1, 2, 4, 5, 6]


def test_an_encoder_error_is_kept_until_a_window_succeeds():
    scene = scene_of(Scripted(window_size=1, bad=[1]))
    run(scene, [1])
    assert scene.status().last_encoder_error == "Frame [1] is bad."
    run(scene, [2])
    assert scene.status().last_encoder_error == ""


@pytest.mark.parametrize("rubbish", ["count", "shape", "pose"])
def test_unusable_geometry_is_an_encoder_error(rubbish):
    encoder = Scripted(window_size=1)
    good = encoder.geometry(1)
    encoder.encode = lambda frames, anchors: {
        "count": [],
        "shape": [FrameGeometry(good.points_scene, good.confidence[1:], np.eye(4), good.intrinsics, good.scale_source)],
        "pose": [FrameGeometry(good.points_scene, good.confidence, np.eye(3), good.intrinsics, good.scale_source)],
    }[rubbish]
    scene = scene_of(encoder)
    run(scene, [1])
    assert scene.status().counts == {"encoder": 1}


def test_a_defect_of_the_encoder_is_not_hidden():
    encoder = Scripted()
    encoder.during = lambda: 1 / 0
    scene = scene_of(encoder)
    scene.add(frame(1))
    with pytest.raises(ZeroDivisionError):
        scene.process()
    assert scene.process() == 0


def test_without_any_geometry_frames_are_spread_over_time():
    scene = scene_of(Scripted(window_size=1, bad=range(20)), selected_frames=3)
    run(scene, range(1, 8))
    selection = scene.snapshot.selection
    assert [s // S for s in selection.stamps_ns] == [1, 4, 7]
    assert (selection.gains, selection.scale_source, selection.voxel_size) == ((0, 0, 0), None, 0.0)


def test_frames_that_wait_for_the_encoder_are_not_selected():
    scene = scene_of()
    scene.add(frame(1))
    assert scene.snapshot.selection.stamps_ns == ()
    scene.process()
    assert scene.snapshot.selection.stamps_ns == (S,)


def test_points_that_cannot_be_used_are_counted_and_the_frame_only_fills_up():
    encoder = Scripted(window_size=1)
    empty = encoder.geometry(1)
    nothing = FrameGeometry(
        np.full_like(empty.points_scene, np.nan), empty.confidence, np.eye(4), empty.intrinsics, empty.scale_source
    )
    encoder.geometry = lambda t, seen=encoder.geometry: nothing if t == 2 else seen(t)
    scene = scene_of(encoder)
    run(scene, [1, 2, 3])
    assert scene.status().counts == {"no_points": 1}
    assert dict(zip(scene.snapshot.selection.stamps_ns, scene.snapshot.selection.gains, strict=True))[2 * S] == 0


def test_metric_and_relative_lengths_never_meet():
    encoder = Scripted(window_size=1, scale=ScaleSource.DEPTH)
    scene = scene_of(encoder)
    run(scene, [1])
    encoder.scale = ScaleSource.MODEL
    run(scene, [2])
    encoder.scale = ScaleSource.TF
    run(scene, [3])
    assert scene.status().counts == {"scale": 1}
    assert [p.stamp_ns // S for p in scene.snapshot.placed] == [1, 3]
    assert scene.status().scale_source is ScaleSource.DEPTH


def test_metric_scenes_use_the_configured_voxel_and_others_a_relative_one():
    metric, relative = (
        scene_of(Scripted(window_size=1, scale=scale), voxel_size_m=0.03)
        for scale in (ScaleSource.TF, ScaleSource.MODEL)
    )
    run(metric, [1])
    run(relative, [1])
    assert metric.snapshot.fine_voxel_size == 0.03
    smallest_side = 1.75  # of a scripted frame
    assert relative.snapshot.fine_voxel_size == pytest.approx(smallest_side / 160, rel=0.01)


def test_placed_frames_and_their_voxels_are_there_for_a_plot():
    scene = scene_of(Scripted(window_size=1))
    known = scene.snapshot
    assert (known.placed, known.fine_voxel_size, known.level) == ((), 0.0, 0)
    run(scene, [1, 2])
    known = scene.snapshot
    assert [p.scene_from_cam[0, 3] for p in known.placed] == [1, 2]
    assert shown_by(scene, [S, 2 * S]) == known.selection.total_voxels
    assert known.fine_voxel_size * 2**known.level == known.selection.voxel_size


# Stamps, rate, epochs


@pytest.mark.parametrize("seconds", [5, 4.5])
def test_duplicate_and_slightly_backward_stamps_are_refused_and_counted(seconds):
    scene = scene_of()
    scene.add(frame(5))
    assert not scene.queue.admits(round(seconds * S))
    with pytest.raises(FrameRejectedError, match="not later") as caught:
        scene.add(frame(seconds))
    assert caught.value.cause == "stamp"
    assert scene.status().counts == {"stamp": 2}


def test_a_zero_stamp_is_not_admitted():
    scene = scene_of()
    assert not scene.queue.admits(0)
    assert scene.status().counts == {"stamp": 1}


def test_frames_above_the_rate_are_thinned_and_counted():
    scene = scene_of(rate_hz=10.0, ring_frames=40)
    taken = [i for i in range(31) if scene.add(frame(1 + i / 30))]
    assert taken == list(range(0, 31, 3))
    assert scene.status().counts == {"thinned": 20}
    assert not scene.queue.admits(round(2.05 * S))
    assert scene.queue.admits(round(2.1 * S))


def test_a_long_pause_changes_nothing():
    scene = scene_of()
    run(scene, [1, 2, 3600 * 24])
    assert (scene.epoch, len(scene.snapshot.placed)) == (0, 3)


def test_a_backward_jump_starts_an_epoch_and_forgets_everything():
    scene = scene_of(ring_frames=3)
    run(scene, range(10, 20))
    scene.add(frame(21))
    assert scene.queue.admits(2 * S)
    scene.add(frame(2))
    assert scene.epoch == 1
    assert scene.snapshot.selection.stamps_ns == ()
    scene.process()
    status = scene.status()
    assert (status.epoch, status.ring_frames, status.keyframes, status.newest_stamp_ns) == (1, 1, 0, 2 * S)
    assert status.counts == {"epoch": 1}
    assert scene.snapshot.selection.stamps_ns == (2 * S,)


def test_a_hundred_loops_of_a_bag_leave_nothing_behind():
    scene = scene_of(Scripted(window_size=2))
    run(scene, range(10, 16))
    first = scene.status()
    for _ in range(100):
        run(scene, range(10, 16))
    last = scene.status()
    assert last.epoch == 100
    assert (last.pixel_bytes, last.index_bytes) == (first.pixel_bytes, first.index_bytes)


def test_a_result_that_comes_after_the_epoch_has_ended_is_thrown_away():
    encoder = Scripted(window_size=2)
    scene = scene_of(encoder)
    scene.add(frame(50))
    encoder.during = lambda: scene.add(frame(1)) if scene.epoch == 0 else None
    assert scene.process() == 1
    assert [p.stamp_ns for p in scene.snapshot.placed] == [S]
    assert scene.status().counts == {"epoch": 1}
    assert encoder.calls[1] == ([1], [])


def test_an_epoch_may_be_started_by_the_caller():
    scene = scene_of()
    run(scene, [1, 2])
    scene.queue.start_epoch("the pose jumped by 2 m")
    assert (scene.epoch, scene.snapshot.selection.stamps_ns) == (1, ())
    run(scene, [1])
    assert scene.snapshot.selection.stamps_ns == (S,)


@pytest.mark.parametrize("changed", [{"height": 5}, {"camera": "other"}])
def test_another_size_or_camera_starts_an_epoch_only_where_no_pose_ties_it_to_the_scene(changed):
    without, with_pose = scene_of(), scene_of(FakeGeometryEncoder(scale_source=ScaleSource.TF))
    for scene, pose in ((without, None), (with_pose, np.eye(4))):
        scene.add(frame(1, pose=pose))
        scene.process()
        scene.add(frame(2, pose=pose, **changed))
        scene.process()
    assert (without.epoch, with_pose.epoch) == (1, 0)
    assert [len(without.snapshot.placed), len(with_pose.snapshot.placed)] == [1, 2]


def test_a_window_never_mixes_sizes():
    encoder = Scripted(window_size=8)
    scene = scene_of(encoder)
    for t, height in enumerate([4, 4, 5, 5, 4], start=1):
        scene.add(frame(t, height=height, pose=np.eye(4)))
    scene.process()
    assert [times for times, _ in encoder.calls] == [[1, 2], [3, 4], [5]]


# Leases and threads


def test_leases_hold_out_while_ring_keyframes_and_a_selection_are_full():
    scene = scene_of(Scripted(window_size=1), ring_frames=3, keyframes=3, selected_frames=2)
    held = []
    for t in range(1, 60):
        buffer = scene.queue.lease(4, 6)
        scene.add(Frame(t * S, buffer))
        scene.process()
        held = scene.snapshot.evidence.frames
    assert len(held) == 2
    assert "pool" not in scene.status().counts


def test_an_exhausted_pool_refuses_and_counts():
    scene = scene_of(ring_frames=1, keyframes=0, selected_frames=1)
    with pytest.raises(FrameRejectedError, match="held"):
        [scene.queue.lease(4, 6) for _ in range(100)]
    assert scene.status().counts == {"pool": 1}


def test_the_frames_of_an_evidence_set_are_in_time_order_and_outlive_the_scene():
    scene = scene_of(ring_frames=2, keyframes=0, selected_frames=2)
    run(scene, [1, 2])
    evidence = scene.snapshot.evidence
    run(scene, [3, 4])
    assert [f.stamp_ns for f in evidence.frames] == list(evidence.selection.stamps_ns) == [S, 2 * S]
    assert scene.snapshot.evidence.stamps_ns == (3 * S, 4 * S)


def test_a_worker_that_is_busy_for_a_whole_ring_does_not_make_the_leases_run_out():
    scene = scene_of(Scripted(window_size=1), ring_frames=20, keyframes=2, selected_frames=1)

    def show(times):
        for t in times:
            scene.add(Frame(t * S, scene.queue.lease(4, 6)))

    for t in range(1, 40):
        show([t])
        scene.process()
    show(range(40, 100))  # the map holds the frames of the old ring all the while
    assert "pool" not in scene.status().counts
    assert scene.status().ring_frames == 20


def test_callbacks_worker_and_readers_in_threads_keep_every_frame_accounted_for():
    scene = scene_of(FakeGeometryEncoder(8, 12, window_size=3), ring_frames=6)
    done, failures = threading.Event(), []

    def guarded(work):
        def body():
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - whatever it is must fail the test
                failures.append(error)

        return threading.Thread(target=body)

    def camera():
        for t in range(1, 301):
            buffer = scene.queue.lease(4, 6)
            buffer[:] = t % 256
            scene.add(Frame(t * S // 10, buffer))
        done.set()

    def worker():
        while not done.is_set() or scene.pending:
            scene.process(max_calls=1)

    def reader():
        while not done.is_set():
            evidence = scene.snapshot.evidence
            assert evidence.stamps_ns == evidence.selection.stamps_ns
            for f in evidence.frames:
                assert (f.rgb == (f.stamp_ns * 10 // S) % 256).all()
            scene.status()

    threads = [guarded(work) for work in (camera, worker, reader, reader)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    status = scene.status()
    assert status.pending == 0
    assert status.ring_frames == 6
    assert status.counts.keys() <= {"unprocessed"}
    assert len(scene.snapshot.selection.stamps_ns) == 4


def test_rejections_of_the_caller_are_counted_with_the_rest():
    scene = scene_of()
    scene.queue.count_rejected("encoding")
    assert scene.status().counts == {"encoding": 1}


def test_a_frame_too_large_for_the_ring_is_refused_without_forgetting_the_others():
    scene = Scene(SceneConfig(rate_hz=0, ring_bytes=1000), FakeGeometryEncoder())
    for index in range(3):
        scene.add(frame(index + 1))
    scene.process()
    with pytest.raises(FrameRejectedError) as caught:
        scene.add(frame(4, height=40, width=60))
    assert caught.value.cause == "size"
    assert scene.epoch == 0
    assert len(scene.snapshot.evidence.frames) == 3
    assert scene.status().counts["size"] == 1
