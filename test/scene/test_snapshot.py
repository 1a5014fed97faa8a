"""What readers in other threads see of a scene while it works. Real threads, awaited conditions."""

import threading

import numpy as np
import pytest

from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.records import SceneSnapshot
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.voxels import coarsen

S = 1_000_000_000
PATIENCE_S = 30.0


class Blocking(FakeGeometryEncoder):
    """Stays in ``encode`` until it is let go."""

    def __init__(self):
        super().__init__(window_size=2)
        self.entered, self.go_on = threading.Event(), threading.Event()

    def encode(self, frames, anchors):
        self.entered.set()
        assert self.go_on.wait(PATIENCE_S)
        return super().encode(frames, anchors)


@pytest.fixture
def blocked(make_frame):
    """A scene with two placed frames whose worker is inside ``encode`` with a third one."""
    encoder = Blocking()
    scene = Scene(SceneConfig(rate_hz=0.0, ring_frames=8, selected_frames=4), encoder)
    encoder.go_on.set()
    for t in (1, 2):
        scene.add(make_frame(t))
    scene.process()
    encoder.entered.clear()
    encoder.go_on.clear()
    scene.add(make_frame(3))
    worker = threading.Thread(target=scene.process)
    worker.start()
    assert encoder.entered.wait(PATIENCE_S)
    yield scene, encoder, worker
    encoder.go_on.set()
    worker.join(PATIENCE_S)
    assert not worker.is_alive()


def assert_consistent(snapshot: SceneSnapshot) -> None:
    """All of it belongs to one moment."""
    evidence, placed = snapshot.evidence, {p.stamp_ns: p for p in snapshot.placed}
    assert snapshot.epoch == evidence.selection.epoch
    assert evidence.stamps_ns == evidence.selection.stamps_ns
    assert evidence.gains == evidence.selection.gains
    assert list(placed) == sorted(placed)
    assert {id(f) for f in evidence.frames if f.stamp_ns in placed} <= {id(p.frame) for p in snapshot.placed}
    assert snapshot.keyframes == sum(p.is_keyframe for p in snapshot.placed)
    assert snapshot.keyframe_bytes == sum(p.frame.nbytes for p in snapshot.placed if p.is_keyframe)
    keys = [coarsen(p.fine_keys, snapshot.level) for p in snapshot.placed]
    assert snapshot.selection.total_voxels == (len(np.unique(np.concatenate(keys))) if keys else 0)


def test_readers_and_the_camera_wait_for_nothing_while_the_encoder_works(blocked, make_frame):
    scene, encoder, worker = blocked
    assert scene.snapshot.evidence.stamps_ns == (S, 2 * S)
    assert scene.queue.admits(4 * S)
    assert scene.add(make_frame(4))
    status = scene.status()
    assert (status.ring_frames, status.pending, status.newest_stamp_ns) == (4, 1, 4 * S)
    assert worker.is_alive()
    assert not encoder.go_on.is_set()


def test_an_epoch_that_ends_while_the_encoder_works_is_not_answered_from(blocked, make_frame):
    scene, encoder, worker = blocked
    before = scene.snapshot
    scene.add(make_frame(0.5))
    assert (before.epoch, scene.epoch, scene.snapshot.epoch) == (0, 1, 1)
    assert (scene.snapshot.placed, scene.snapshot.evidence.frames) == ((), ())
    status = scene.status()
    assert (status.epoch, status.keyframes, status.index_bytes, status.scale_source) == (1, 0, 0, None)
    assert_consistent(before)  # whoever holds it still has all of it
    encoder.go_on.set()
    worker.join(PATIENCE_S)
    assert [p.stamp_ns for p in scene.snapshot.placed] == [S // 2]
    assert scene.status().counts == {"epoch": 1}


def test_a_second_worker_is_refused_while_the_first_one_is_inside(blocked):
    scene, _, _ = blocked
    for work in (scene.process, scene.content, lambda: scene.restore(None, "a test")):
        with pytest.raises(SpatialMllmError, match="one worker thread"):
            work()


def test_frames_that_leave_the_ring_become_keyframes_when_the_worker_looks_also_without_a_frame_to_place(make_frame):
    encoder = FakeGeometryEncoder(window_size=1)
    scene = Scene(SceneConfig(rate_hz=0.0, ring_frames=2, selected_frames=4), encoder)
    for t in (1, 3):
        scene.add(make_frame(t))
    scene.process()
    scene.add(make_frame(5))
    assert [p.is_keyframe for p in scene.snapshot.placed] == [False, False]
    scene.process(max_calls=0)
    assert [p.is_keyframe for p in scene.snapshot.placed] == [True, False]
    assert scene.pending == 1


def test_a_snapshot_stays_as_it_was_while_the_scene_goes_on(make_frame):
    scene = Scene(SceneConfig(rate_hz=0.0, ring_frames=3, keyframes=2, selected_frames=3), FakeGeometryEncoder())
    held = []
    for t in range(1, 40):
        scene.add(make_frame(t))
        scene.process()
        snapshot = scene.snapshot
        held.append((snapshot, snapshot.evidence.stamps_ns, [(p.stamp_ns, len(p.fine_keys)) for p in snapshot.placed]))
    for snapshot, stamps_ns, placed in held:
        assert_consistent(snapshot)
        assert snapshot.evidence.stamps_ns == stamps_ns
        assert [(p.stamp_ns, len(p.fine_keys)) for p in snapshot.placed] == placed


def test_snapshots_are_consistent_and_counts_exact_while_camera_and_worker_run(make_frame):
    scene = Scene(
        SceneConfig(rate_hz=0.0, ring_frames=5, keyframes=3, selected_frames=3), FakeGeometryEncoder(window_size=2)
    )
    laps, per_lap, placed = 20, 30, []
    done, failures = threading.Event(), []
    picture = make_frame(1).rgb

    def guarded(work):
        def body():
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - whatever it is must fail the test
                failures.append(error)
                done.set()

        return threading.Thread(target=body)

    def camera():
        for _ in range(laps):  # each lap begins earlier than the last one ended: an epoch of its own
            for t in range(1, per_lap + 1):
                scene.add(Frame(10 * t * S, picture))
        done.set()

    def worker():
        while not done.is_set() or scene.pending:
            placed.append(scene.process(max_calls=1))

    def reader():
        epoch = 0
        while not done.is_set():
            before = scene.epoch
            snapshot = scene.snapshot
            assert before <= snapshot.epoch <= scene.epoch
            assert snapshot.epoch >= epoch
            epoch = snapshot.epoch
            assert_consistent(snapshot)
            status = scene.status()
            assert status.epoch >= epoch
            assert status.pending <= status.ring_frames <= 5

    threads = [guarded(work) for work in (camera, worker, reader, reader)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
    status = scene.status()
    assert (scene.epoch, status.pending) == (laps - 1, 0)
    assert status.counts.keys() <= {"unprocessed", "epoch"}
    assert sum(placed) + sum(status.counts.values()) == laps * per_lap
