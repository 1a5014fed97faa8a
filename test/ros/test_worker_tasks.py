import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from spatial_mllm_ros.ros.worker import SessionWorker


@pytest.fixture
def worker():
    session = SimpleNamespace(scene=SimpleNamespace(pending=0))
    running = SessionWorker(
        session, queue_size=2, max_view_age_ns=1, now_stamp_ns=lambda: 0, on_scene_changed=lambda: None
    )
    yield running
    running.close()


def occupy(worker) -> threading.Event:
    """Keeps the thread busy until the event is set."""
    started, leave = threading.Event(), threading.Event()
    worker.submit_task(lambda: (started.set(), leave.wait(30)))
    assert started.wait(30)
    return leave


def test_newer_tasks_take_the_place_of_older_ones_but_not_of_those_that_somebody_waits_for(worker):
    leave, done, all_done = occupy(worker), [], threading.Event()
    worker.submit_task(lambda: done.append("waited for"), refused=lambda: done.append("refused"))
    for number in range(9):
        worker.submit_task(lambda number=number: done.append(number))
    worker.submit_task(all_done.set, refused=all_done.set)
    leave.set()
    assert all_done.wait(30)
    assert done == ["waited for", 5, 6, 7, 8]


def test_a_task_that_the_thread_does_not_come_to_is_refused_once(worker):
    leave, told = occupy(worker), []
    worker.submit_task(lambda: told.append("done"), refused=lambda: told.append("refused"))
    worker.submit_task(lambda: told.append("dropped"))
    closing = threading.Thread(target=worker.close)
    closing.start()
    while not worker.stopping:
        pass
    leave.set()
    closing.join(30)
    assert told == ["refused"]


def test_after_the_end_a_task_is_refused_at_once(worker):
    worker.close()
    told = []
    worker.submit_task(lambda: told.append("done"))
    worker.submit_task(lambda: told.append("done"), refused=lambda: told.append("refused"))
    assert told == ["refused"]
