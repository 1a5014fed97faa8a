"""The worker's thread: in which order it works, and that nothing starves. Real threads, awaited conditions."""

import threading
import time

import numpy as np
import pytest

from spatial_mllm_ros.answering.answer import Status
from spatial_mllm_ros.answering.context import ContextConfig, VisualContext
from spatial_mllm_ros.answering.model import Generation
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.session import Inquiry, SpatialSession
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.ros.worker import SessionWorker
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

SECOND_NS = 1_000_000_000
PATIENCE_S = 30.0


class Gate:
    """A point in the worker's thread: the test waits until the thread has reached it, and lets the thread continue."""

    def __init__(self):
        self.reached = threading.Event()
        self.open = threading.Event()

    def pass_through(self):
        self.reached.set()
        assert self.open.wait(PATIENCE_S)


class LoggingModel:
    """Logs its calls; a context takes ``steps`` steps, between which it can be interrupted."""

    identity = ModelIdentity("logging", "0" * 64, "none", "none", True)

    def __init__(self, steps=3):
        self.steps = steps
        self.log = []
        self.on_step = lambda: None
        self.on_question = lambda: None
        self.begun = ((), 0)

    def prepare(self, frames, *, epoch, interrupt, pause_requested=lambda: False):
        stamps = tuple(frame.stamp_ns for frame in frames)
        done = self.begun[1] if self.begun[0] == stamps else 0
        while done < self.steps:
            self.on_step()
            if interrupt():
                self.log.append("refresh interrupted")
                return None
            done += 1
            self.begun = (stamps, done)
            if done < self.steps and pause_requested():
                self.log.append("refresh paused")
                return None
        self.begun = ((), 0)
        self.log.append(("context", stamps))
        return VisualContext(epoch, stamps, self.identity.sha256, time.monotonic_ns(), prefix=None)

    def generate(self, question, context, *, should_stop, on_text=None):
        self.on_question()
        self.log.append(question.text)
        return Generation("3", 0.5, True, question.text, 1)


class LoggingEncoder(FakeGeometryEncoder):
    """Logs every window."""

    def __init__(self, log):
        super().__init__()
        self.log = log
        self.on_window = lambda: None

    def encode(self, frames, anchors):
        self.log.append("window")
        self.on_window()
        return super().encode(frames, anchors)


class Stage:
    """A worker over a small scene, and the camera of the test."""

    def __init__(self, model, **config):
        self.model = model
        self.encoder = LoggingEncoder(model.log)
        self.scene = Scene(SceneConfig(selected_frames=3, ring_frames=3, keyframes=0, rate_hz=0.0), self.encoder)
        self.session = SpatialSession(self.scene, model, ContextConfig(**{"refresh_interval_s": 0.0, **config}))
        self.answers = {}
        self._answered = threading.Condition()
        self._shown = 0
        self.on_scene_changed = lambda: None
        self.worker = None

    def start(self):
        self.worker = SessionWorker(
            self.session,
            queue_size=10,
            max_view_age_ns=10**18,
            now_stamp_ns=lambda: 1,
            on_scene_changed=lambda: self.on_scene_changed(),
        )

    def show(self, count=1):
        for _ in range(count):
            self._shown += 1
            rgb = np.full((30, 42, 3), self._shown % 256, np.uint8)
            self.scene.add(Frame(stamp_ns=self._shown * SECOND_NS, rgb=rgb))
        if self.worker is not None:
            self.worker.frame_added()

    def ask(self, text, **options):
        def done(answer):
            with self._answered:
                self.answers[text] = answer
                self._answered.notify_all()

        self.worker.submit(Inquiry(Question(text), time.monotonic_ns(), **options), done)

    def answer(self, text):
        with self._answered:
            assert self._answered.wait_for(lambda: text in self.answers, PATIENCE_S), f"no answer to {text!r}"
            return self.answers[text]

    def until(self, condition):
        """Polls, because the worker's thread does not notify."""
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"it never happened; the log is {self.model.log}"
            threading.Event().wait(0.002)


@pytest.fixture
def stage():
    stages = []

    def make(model=None, **config):
        stages.append(Stage(model or LoggingModel(), **config))
        return stages[-1]

    yield make
    for made in stages:
        if made.worker is not None:
            made.worker.close()


def test_the_context_is_made_in_the_background_and_the_first_question_is_warm(stage):
    running = stage()
    running.start()
    running.show(3)
    running.until(lambda: running.session.context is not None and len(running.session.context.stamps_ns) == 3)
    running.ask("How many chairs?")
    assert running.answer("How many chairs?").context == "warm"


def test_a_question_preempts_a_refresh_which_goes_on_after_it(stage):
    model = LoggingModel()
    running = stage(model)
    running.show(3)
    running.scene.process()
    running.session.refresh()
    old = running.session.context.stamps_ns
    running.show(1)  # a third of the evidence changes: near enough to answer, enough to refresh
    running.scene.process()
    gate = Gate()
    model.on_step = gate.pass_through
    model.log.clear()
    running.start()
    assert gate.reached.wait(PATIENCE_S)  # the refresh is under way
    running.ask("How many chairs?")
    gate.open.set()
    answer = running.answer("How many chairs?")
    assert (answer.status, answer.context, answer.evidence_stamps_ns) == (Status.OK, "warm", old)
    running.until(lambda: running.session.context.stamps_ns != old)
    new = running.scene.snapshot.selection.stamps_ns
    assert model.log == ["refresh interrupted", "How many chairs?", ("context", new)]


def test_questions_are_answered_in_order_before_the_windows_and_these_before_the_refresh(stage):
    model = LoggingModel()
    running = stage(model)
    gate = Gate()
    running.show(1)
    running.scene.process()
    model.log.clear()
    model.on_question = gate.pass_through
    running.session.refresh()
    running.start()
    running.ask("first")
    assert gate.reached.wait(PATIENCE_S)
    running.show(2)
    running.ask("second")
    running.ask("third")
    gate.open.set()
    scene = running.scene
    running.until(lambda: ("context", scene.snapshot.selection.stamps_ns) in model.log and not scene.pending)
    said = [entry for entry in model.log if isinstance(entry, str) and entry != "refresh paused"]
    assert said[:4] == ["first", "second", "third", "window"]


def test_an_endless_stream_of_frames_does_not_starve_the_refresh_nor_the_refresh_the_frames(stage):
    """Every window brings the next frames at once, so that there is always one to encode."""
    model = LoggingModel(steps=6)
    running = stage(model, max_changed_fraction=1.0)
    streaming = threading.Event()
    streaming.set()

    def next_frames():
        if streaming.is_set():
            running.show(1)

    running.encoder.on_window = next_frames
    clock = {"slices": 0}

    def slow_step():
        clock["slices"] += 1
        threading.Event().wait(0.03)  # two of them are longer than a slice

    model.on_step = slow_step
    running.show(1)
    running.start()

    def contexts_of_several_slices() -> int:
        """Contexts that were made while two windows or more were placed."""
        windows, count = 0, 0
        for entry in list(model.log):
            windows += entry == "window"
            if entry[0] == "context":
                windows, count = 0, count + (windows >= 2)
        return count

    running.until(lambda: contexts_of_several_slices() >= 2 and model.log.count("refresh paused") >= 2)
    streaming.clear()
    log = list(model.log)
    paused = [index for index, entry in enumerate(log[:-1]) if entry == "refresh paused"]
    assert all(log[index + 1] == "window" for index in paused)  # they take turns


def test_closing_ends_a_refresh_in_the_middle_and_answers_who_waits(stage):
    model = LoggingModel(steps=10**9)
    running = stage(model)
    running.show(3)
    reached = threading.Event()
    model.on_step = reached.set
    running.start()
    assert reached.wait(PATIENCE_S)
    running.worker.close()
    assert not running.worker._thread.is_alive()
    running.ask("too late?")
    assert running.answer("too late?").status is Status.CANCELLED


def test_an_unexpected_error_in_a_refresh_costs_no_answer_and_the_refresh_is_not_repeated_at_once(stage):
    model = LoggingModel()
    running = stage(model)
    failed = []

    def broken():
        failed.append(1)
        raise ZeroDivisionError

    model.on_step = broken
    running.show(3)
    running.scene.process()
    running.start()
    running.until(lambda: failed)
    model.on_step = lambda: None
    running.ask("still there?")
    assert running.answer("still there?").status is Status.OK
    assert len(failed) == 1


def test_a_callback_that_raises_does_not_end_the_thread(stage):
    running = stage()
    raised = []

    def broken(*_):
        raised.append(1)
        raise ZeroDivisionError

    running.on_scene_changed = broken
    running.start()
    running.show(3)
    running.until(lambda: len(raised) == 1)
    running.worker.submit(Inquiry(Question("nobody takes this answer"), time.monotonic_ns()), broken)
    running.until(lambda: len(raised) == 2)
    running.ask("still there?")
    assert running.answer("still there?").status is Status.OK


def test_a_task_of_the_node_does_not_wait_for_a_whole_refresh(stage):
    model = LoggingModel()
    running = stage(model)
    running.show(3)
    running.scene.process()
    gate = Gate()
    model.on_step = gate.pass_through
    running.start()
    assert gate.reached.wait(PATIENCE_S)
    running.worker.submit_task(lambda: model.log.append("task"))
    gate.open.set()
    running.until(lambda: "task" in model.log and running.session.context is not None)
    log = model.log
    assert log.index("task") < next(i for i, entry in enumerate(log) if entry[0] == "context")


def test_the_end_of_an_epoch_frees_the_context_also_when_nobody_asks(stage):
    running = stage()
    running.show(3)
    running.start()
    running.until(lambda: running.session.context_cache._current is not None)
    running.scene.queue.start_epoch("a test")
    running.worker.frame_added()
    running.worker.submit_task(lambda: None)
    running.until(lambda: running.session.context_cache._current is None)
