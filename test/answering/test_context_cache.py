"""When a new context is made, which context answers meanwhile, and what an answer gives up for its deadline."""

import time
import weakref

import numpy as np
import pytest

from spatial_mllm_ros.answering.answer import Status
from spatial_mllm_ros.answering.context import ContextConfig, VisualContext
from spatial_mllm_ros.answering.deadline_policy import Degradation
from spatial_mllm_ros.answering.model import Generation, ModelOutOfMemoryError
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.session import Inquiry, SpatialSession
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

SECOND_NS = 1_000_000_000
COUNT = Question("How many chairs are in this room?")


class Clock:
    """The steady clock, which stands still unless somebody works."""

    def __init__(self, monkeypatch):
        self.now_ns = 1000 * SECOND_NS
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)

    def pass_s(self, seconds):
        self.now_ns += round(seconds * SECOND_NS)


ALIVE = weakref.WeakSet()


class Prefix:
    """What the model below keeps of its frames."""

    def __init__(self):
        ALIVE.add(self)


class SlowModel:
    """Reads one frame per second of the clock, can be left after each, and says one word per second."""

    identity = ModelIdentity("slow", "0" * 64, "none", "none", True)

    def __init__(self, clock, *, text="3", frames_that_fit=100):
        self.clock = clock
        self.text = text
        self.frames_that_fit = frames_that_fit
        self.frames_beside_a_question = 100
        self.begun = ((), 0)
        self.made = []
        self.fails = None
        self.on_frame = lambda: None

    def prepare(self, frames, *, epoch, interrupt, pause_requested=lambda: False):
        stamps = tuple(frame.stamp_ns for frame in frames)
        if self.fails:
            raise self.fails
        if len(frames) > self.frames_that_fit:
            raise ModelOutOfMemoryError(f"{len(frames)} frames")
        done = self.begun[1] if self.begun[0] == stamps else 0
        while done < len(stamps):
            if interrupt():
                return None
            self.clock.pass_s(1)
            done += 1
            self.begun = (stamps, done)
            self.on_frame()
            if done < len(stamps) and pause_requested():
                return None
        self.begun = ((), 0)
        self.made.append(stamps)
        return VisualContext(epoch, stamps, self.identity.sha256, self.clock.now_ns, prefix=Prefix())

    def generate(self, question, context, *, should_stop, on_text=None):
        if len(context.stamps_ns) > self.frames_beside_a_question:
            raise ModelOutOfMemoryError(f"a question beside {len(context.stamps_ns)} frames")
        said = []
        for word in self.text.split():
            if should_stop():
                return Generation(" ".join(said), 0.5, False, question.text, 0)
            self.clock.pass_s(1)
            said.append(word)
        stopped = should_stop() and not self.text
        return Generation(" ".join(said), 0.5, not stopped, question.text, 1)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def walk(clock):
    """A session over a walk that goes on: walk.more(n) shows n new places, each evidence set holds the last ones."""
    return Walk(clock)


class Walk:
    def __init__(self, clock, **config):
        self.clock = clock
        self.model = SlowModel(clock)
        scene = Scene(SceneConfig(selected_frames=4, ring_frames=4, keyframes=0, rate_hz=100.0), FakeGeometryEncoder())
        self.session = SpatialSession(scene, self.model, ContextConfig(**config))
        self.shown = 0

    @property
    def scene(self):
        return self.session.scene

    @property
    def evidence(self):
        return self.scene.snapshot.selection.stamps_ns

    def more(self, count, start_s=100):
        for _ in range(count):
            rgb = np.full((30, 42, 3), self.shown, np.uint8)
            self.scene.add(Frame(stamp_ns=start_s * SECOND_NS + self.shown * SECOND_NS // 4, rgb=rgb))
            self.shown += 1
            self.scene.process()

    def answer(self, within_s=None, **options):
        now_ns = self.clock.now_ns
        deadline_ns = None if within_s is None else now_ns + round(within_s * SECOND_NS)
        return self.session.answer(Inquiry(COUNT, now_ns, deadline_ns, **options))


def test_the_first_question_is_cold_and_the_next_ones_are_warm_and_say_how_old_their_context_is(walk):
    walk.more(4)
    first = walk.answer()
    assert (first.context, first.context_age_ns, first.degradation) == ("cold", 0, Degradation.NONE)
    assert first.timings.vision_ns == 4 * SECOND_NS
    walk.clock.pass_s(7)
    second = walk.answer()
    assert (second.context, second.context_age_ns) == ("warm", 8 * SECOND_NS)  # the first answer took one
    assert second.timings.vision_ns == 0
    assert second.evidence_stamps_ns == first.evidence_stamps_ns == walk.evidence
    assert len(walk.model.made) == 1


def test_a_context_made_in_advance_makes_the_first_question_warm(walk):
    walk.more(4)
    assert walk.session.seconds_to_refresh() == 0
    assert walk.session.refresh()
    assert walk.session.context.stamps_ns == walk.evidence
    assert walk.answer().context == "warm"


def test_a_near_context_answers_with_its_own_evidence_and_a_far_one_does_not(walk):
    walk.more(4)
    made_of = walk.answer().evidence_stamps_ns
    walk.more(2)  # half of the evidence has changed
    assert walk.evidence != made_of
    answer = walk.answer()
    assert (answer.context, answer.evidence_stamps_ns) == ("warm", made_of)
    walk.more(1)
    answer = walk.answer()
    assert (answer.context, answer.evidence_stamps_ns) == ("cold", walk.evidence)


def test_who_asks_about_the_evidence_of_the_moment_gets_it(walk):
    walk.more(4)
    walk.answer()
    walk.more(1)
    assert walk.answer(fresh=True).evidence_stamps_ns == walk.evidence
    walk.more(1)
    assert walk.session.ask(COUNT).evidence_stamps_ns == walk.evidence
    assert walk.session.ask(COUNT).context == "warm"


def test_a_refresh_is_due_when_enough_has_changed_but_not_too_often(walk):
    session = walk.session
    assert session.seconds_to_refresh() is None  # nothing has been seen
    walk.more(4)
    session.refresh()
    assert session.seconds_to_refresh() is None  # nothing has changed
    walk.more(1)
    assert session.seconds_to_refresh() == pytest.approx(2.0)
    walk.clock.pass_s(0.5)
    assert session.seconds_to_refresh() == pytest.approx(1.5)
    walk.clock.pass_s(1.5)
    assert session.seconds_to_refresh() == 0


def test_a_small_change_is_enough_once_the_context_is_old(clock):
    walk = Walk(clock, refresh_changed_fraction=0.5, max_age_s=20.0)
    walk.more(4)
    walk.session.refresh()
    walk.more(1)
    assert walk.session.seconds_to_refresh() == pytest.approx(20.0)
    clock.pass_s(25)
    assert walk.session.seconds_to_refresh() == 0


def test_a_context_that_is_old_but_still_exact_is_kept(walk):
    walk.more(4)
    walk.session.refresh()
    walk.clock.pass_s(10_000)
    assert walk.session.seconds_to_refresh() is None


def test_without_refresh_in_the_background_questions_make_the_context(clock):
    walk = Walk(clock, refresh=False)
    walk.more(4)
    assert walk.session.seconds_to_refresh() is None
    assert walk.answer().context == "cold"
    assert walk.answer().context == "warm"


def test_an_interrupted_refresh_leaves_the_old_context_whole_and_goes_on_later(walk):
    walk.more(4)
    walk.session.refresh()
    old = walk.session.context
    walk.more(3)
    asked = iter(range(100))
    assert not walk.session.refresh(interrupt=lambda: next(asked) >= 2)
    assert walk.session.context is old
    assert walk.session.seconds_to_refresh() == 0
    started_ns = walk.clock.now_ns
    assert walk.session.refresh()
    assert walk.clock.now_ns - started_ns == 2 * SECOND_NS  # two of four frames had been read
    assert walk.session.context is not old


def test_a_question_during_a_refresh_is_answered_from_the_old_context_which_it_names(walk):
    walk.more(4)
    walk.session.refresh()
    old = walk.session.context
    walk.more(2)
    walk.session.refresh(interrupt=lambda: False, pause_requested=lambda: True)
    answer = walk.answer()
    assert (answer.context, answer.evidence_stamps_ns) == ("warm", old.stamps_ns)
    assert [walk.session.refresh(pause_requested=lambda: True) for _ in range(3)] == [False, False, True]
    assert walk.answer().evidence_stamps_ns == walk.evidence != old.stamps_ns


def test_a_refresh_under_way_keeps_to_its_frames_so_that_it_ends_while_the_robot_walks_on(walk):
    walk.more(4)
    begun_for = walk.evidence
    calls = 0
    while not walk.session.refresh(pause_requested=lambda: True):
        walk.more(1)
        calls += 1
        assert calls < 10
    assert walk.session.context.stamps_ns == begun_for


def test_a_cold_question_goes_on_with_a_refresh_that_is_near_enough(walk):
    walk.more(4)
    walk.session.refresh(pause_requested=lambda: True)
    begun_for = walk.evidence
    walk.more(1)
    answer = walk.answer()
    assert (answer.context, answer.evidence_stamps_ns) == ("cold", begun_for)
    assert answer.timings.vision_ns == 3 * SECOND_NS  # one frame had been read
    assert walk.model.made == [begun_for]


def test_at_most_two_contexts_are_alive_and_after_a_refresh_one(walk):
    ALIVE.clear()
    alive = []
    walk.model.on_frame = lambda: alive.append(len(ALIVE))
    for _ in range(4):
        walk.more(4)
        walk.session.refresh()
        assert len(ALIVE) == 1
        walk.more(4)
        walk.answer()  # cold
        assert len(ALIVE) == 1
    assert max(alive) == 1  # beside the one being made


def test_the_end_of_an_epoch_ends_the_context(walk):
    walk.more(4)
    walk.session.refresh()
    walk.more(1)
    walk.session.refresh(pause_requested=lambda: True)
    walk.more(1, start_s=10)
    assert walk.session.context is None
    assert not walk.session.context_cache.refreshing
    answer = walk.answer()
    assert (answer.context, answer.evidence_stamps_ns) == ("cold", walk.evidence)
    assert len(walk.evidence) == 1


def test_a_refresh_that_the_clock_jumps_away_under_never_answers(walk):
    walk.more(4)
    walk.model.on_frame = lambda: walk.scene.queue.start_epoch("a test")
    assert not walk.session.refresh()
    assert walk.session.context is None
    walk.model.on_frame = lambda: None
    assert walk.session.seconds_to_refresh() is None
    walk.more(4)
    assert walk.session.refresh()
    assert walk.session.context.epoch == walk.scene.epoch


def test_a_refresh_that_fails_keeps_the_old_context_and_is_not_tried_again_at_once(walk):
    walk.more(4)
    walk.session.refresh()
    old = walk.session.context
    walk.more(2)
    walk.model.fails = ConfigurationError("The frames do not fit.")
    assert not walk.session.refresh()
    assert walk.session.context is old
    assert walk.session.seconds_to_refresh() == pytest.approx(30.0)
    assert walk.answer().context == "warm"
    walk.clock.pass_s(30)
    walk.model.fails = None
    assert walk.session.refresh()


def test_out_of_memory_halves_the_frames_of_this_epoch_for_refresh_and_question_alike(walk):
    walk.model.frames_that_fit = 2
    walk.more(4)
    assert not walk.session.refresh()
    assert walk.session.refresh()
    assert len(walk.session.context.stamps_ns) == 2
    assert walk.session.seconds_to_refresh() is None  # it is what memory holds, not a change of the evidence
    answer = walk.answer()
    assert (len(answer.evidence_stamps_ns), answer.degradation) == (2, Degradation.FEWER_FRAMES)
    walk.model.frames_that_fit = 100
    walk.more(4, start_s=10)
    walk.session.refresh()
    assert len(walk.session.context.stamps_ns) == 4


def test_what_memory_holds_of_the_evidence_is_as_good_as_all_of_it_once_that_is_known(clock):
    walk = Walk(clock, max_changed_fraction=0.2)
    walk.model.frames_that_fit = 2
    walk.more(4)
    assert walk.answer().context == "cold"
    assert walk.answer().context == "warm"
    assert walk.session.ask(COUNT).context == "warm"


def test_a_context_that_leaves_no_memory_for_a_question_is_made_of_half_the_frames(walk):
    walk.more(4)
    walk.session.refresh()
    walk.model.frames_beside_a_question = 2
    answer = walk.answer()
    assert (answer.status, answer.context, answer.degradation) == (Status.OK, "cold", Degradation.FEWER_FRAMES)
    assert [len(stamps) for stamps in walk.model.made] == [4, 2]
    walk.model.frames_beside_a_question = 1
    answer = walk.answer()
    assert (answer.status, answer.degradation) == (Status.OUT_OF_MEMORY, Degradation.NO_TEXT)
    assert "beside 2 frames" in answer.message


def test_fewer_frames_when_all_of_them_would_take_too_long(walk):
    walk.more(4)
    walk.answer()  # four seconds for the context, one for the text
    walk.more(4)
    answer = walk.answer(within_s=4.5)
    assert (answer.status, answer.context, answer.degradation) == (Status.OK, "cold", Degradation.FEWER_FRAMES)
    assert len(answer.evidence_stamps_ns) == 2
    assert set(answer.evidence_stamps_ns) <= set(walk.evidence)
    assert walk.session.seconds_to_refresh() is not None  # all of them are read in the background


def test_with_a_warm_context_a_short_deadline_costs_no_frames(walk):
    walk.more(4)
    walk.session.refresh()
    answer = walk.answer(within_s=1.5)
    assert (answer.status, answer.degradation, len(answer.evidence_stamps_ns)) == (Status.OK, Degradation.NONE, 4)


def test_the_text_is_truncated_at_the_deadline(walk):
    walk.more(4)
    walk.session.refresh()
    walk.model.text = "3 chairs stand here"
    answer = walk.answer(within_s=2)
    assert (answer.status, answer.degradation, answer.text) == (Status.DEADLINE, Degradation.TRUNCATED, "3 chairs")
    assert answer.value is None  # a truncated text may be half a number


def test_when_nothing_fits_the_answer_is_the_deadline_and_names_the_evidence(walk):
    walk.more(4)
    answer = walk.answer(within_s=2)
    assert (answer.status, answer.degradation, answer.text) == (Status.DEADLINE, Degradation.NO_TEXT, "")
    assert answer.evidence_stamps_ns == walk.evidence
    assert walk.clock.now_ns == 1002 * SECOND_NS  # it ended with the deadline, in the middle of the frames


def test_a_cancelled_question_ends_in_the_middle_of_its_frames(walk):
    walk.more(4)
    answer = walk.answer(cancelled=lambda: walk.clock.now_ns >= 1002 * SECOND_NS)
    assert (answer.status, answer.degradation) == (Status.CANCELLED, Degradation.NO_TEXT)
    assert walk.model.made == []
