"""The session against real scenes with a fake encoder, and models that behave badly on purpose."""

import time

import numpy as np
import pytest

from spatial_mllm_ros.answering.answer import Status
from spatial_mllm_ros.answering.context import VisualContext
from spatial_mllm_ros.answering.model import Generation, ModelOutOfMemoryError
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.session import Inquiry, SpatialSession
from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

SECOND_NS = 1_000_000_000
COUNT = Question("How many chairs are in this room?")


class ScriptedModel:
    """Answers with a given text, word by word, and asks after each word whether to stop."""

    identity = ModelIdentity("scripted", "0" * 64, "none", "none", True)

    def __init__(self, text="3", *, before_word=lambda: None, frames_that_fit=100):
        self.text = text
        self.before_word = before_word
        self.frames_that_fit = frames_that_fit
        self.seen = []

    def prepare(self, frames, *, epoch, interrupt, pause_requested=lambda: False):
        self.seen.append([frame.stamp_ns for frame in frames])
        if len(frames) > self.frames_that_fit:
            raise ModelOutOfMemoryError(f"{len(frames)} frames")
        if interrupt():
            return None
        return VisualContext(epoch, tuple(self.seen[-1]), self.identity.sha256, time.monotonic_ns(), prefix=None)

    def generate(self, question, context, *, should_stop, on_text=None):
        said = ""
        for word in self.text.split():
            self.before_word()
            if should_stop():
                return Generation(said.strip(), 0.5, False, question.text, 20)
            said += f" {word}"
            if on_text:
                on_text(said.strip())
        return Generation(said.strip(), 0.5, True, question.text, 20)


def session_with(model, frames=6, **scene_options) -> SpatialSession:
    scene = Scene(SceneConfig(selected_frames=4, rate_hz=100.0, **scene_options), FakeGeometryEncoder())
    for index in range(frames):
        scene.add(frame(index))
    scene.process()
    return SpatialSession(scene, model)


def frame(index: int, start_s: int = 100, height: int = 30, pose: np.ndarray | None = None) -> Frame:
    rgb = np.full((height, 42, 3), index, np.uint8)
    return Frame(stamp_ns=start_s * SECOND_NS + index * SECOND_NS // 4, rgb=rgb, scene_from_cam=pose)


def test_an_answer_carries_value_evidence_epoch_and_timings():
    model = ScriptedModel("3 chairs")
    session = session_with(model)
    answer = session.ask(COUNT)
    assert (answer.status, answer.value, answer.text, answer.unit) == (Status.OK, 3.0, "3 chairs", "")
    assert list(answer.evidence_stamps_ns) == model.seen[0] == list(session.scene.snapshot.selection.stamps_ns)
    assert answer.model is model.identity
    assert answer.scale_source == session.scene.snapshot.selection.scale_source
    assert isinstance(answer.scale_source, ScaleSource)
    assert answer.confidence == 0.5
    timings = answer.timings
    assert timings.total_ns >= timings.first_token_ns >= 20
    assert timings.vision_ns > 0


def test_a_text_in_another_form_is_unparsed_and_kept():
    answer = session_with(ScriptedModel("quite a few")).ask(COUNT)
    assert (answer.status, answer.text, answer.value) == (Status.UNPARSED, "quite a few", None)


def test_saying_nothing_is_never_a_success():
    answer = session_with(ScriptedModel("")).ask(Question("What is left of the sofa?"))
    assert answer.status is Status.UNPARSED


def test_the_answer_to_a_choice_question_is_the_text_of_the_option():
    answer = session_with(ScriptedModel("B")).ask(Question("Which is nearer?", ("the sofa", "the door")))
    assert (answer.status, answer.choice, answer.text) == (Status.OK, 1, "the door")


def test_without_frames_nothing_is_asked_of_the_model():
    model = ScriptedModel()
    answer = session_with(model, frames=0).ask(COUNT)
    assert answer.status is Status.NO_FRAMES
    assert model.seen == []
    assert answer.message


def test_a_question_that_comes_before_the_first_window_is_processed_still_gets_an_answer():
    session = session_with(ScriptedModel(), frames=0)
    session.scene.add(frame(0))
    assert session.ask(COUNT).status is Status.OK


def test_the_deadline_ends_the_text_where_it_is():
    spent = []

    def slow():
        spent.append(1)
        if len(spent) == 3:
            deadline_passes(inquiry)

    def deadline_passes(asked):
        asked.deadline_ns = time.monotonic_ns() - 1

    inquiry = Inquiry(COUNT, time.monotonic_ns(), time.monotonic_ns() + 100 * SECOND_NS)
    answer = session_with(ScriptedModel("one two three four", before_word=slow)).answer(inquiry)
    assert (answer.status, answer.text) == (Status.DEADLINE, "one two")
    assert answer.evidence_stamps_ns


def test_an_expired_question_is_not_begun():
    model = ScriptedModel()
    now_ns = time.monotonic_ns()
    answer = session_with(model).answer(Inquiry(COUNT, now_ns - 10, now_ns - 5))
    assert answer.status is Status.DEADLINE
    assert model.seen == []


def test_a_cancelled_question_ends_within_one_token():
    words = []
    model = ScriptedModel("one two three", before_word=lambda: words.append(1))
    answer = session_with(model).answer(Inquiry(COUNT, time.monotonic_ns(), cancelled=lambda: len(words) >= 2))
    assert (answer.status, answer.text) == (Status.CANCELLED, "one")


def test_a_clock_jump_while_the_question_is_open_is_said_and_not_mixed():
    def jump_back():
        session.scene.add(frame(0, start_s=10))

    session = session_with(ScriptedModel("three", before_word=jump_back))
    answer = session.ask(COUNT)
    assert answer.status is Status.TIME_JUMP
    assert "three" not in answer.text


def test_frames_of_an_earlier_image_size_are_left_out_and_the_answer_says_so():
    model = ScriptedModel()
    session = session_with(model, frames=0)
    for index in range(4):
        session.scene.add(frame(index, height=30 if index < 3 else 20, pose=np.eye(4)))
    session.scene.process()
    answer = session.ask(COUNT)
    assert answer.status is Status.OK
    assert len(model.seen[0]) == len(answer.evidence_stamps_ns) == 1
    assert "3 of 4 frames have another image size" in answer.message


def test_out_of_memory_halves_the_frames_until_they_fit():
    model = ScriptedModel("2", frames_that_fit=2)
    answer = session_with(model).ask(COUNT)
    assert answer.status is Status.OK
    assert [len(seen) for seen in model.seen] == [4, 2]
    assert list(answer.evidence_stamps_ns) == model.seen[-1]


def test_out_of_memory_with_few_frames_is_a_status_with_the_cause():
    answer = session_with(ScriptedModel(frames_that_fit=0)).ask(COUNT)
    assert answer.status is Status.OUT_OF_MEMORY
    assert "frames" in answer.message


def test_a_model_error_is_a_status_with_its_sentence():
    def broken():
        raise ConfigurationError("The frames do not fit.")

    answer = session_with(ScriptedModel(before_word=broken)).ask(COUNT)
    assert answer.status is Status.MODEL_ERROR
    assert "The frames do not fit." in answer.message


def test_the_age_of_the_view_is_stated():
    session = session_with(ScriptedModel())
    newest_ns = session.scene.status().newest_stamp_ns
    answer = session.answer(Inquiry(COUNT, time.monotonic_ns()), now_stamp_ns=newest_ns + 7 * SECOND_NS)
    assert answer.newest_frame_age_ns == 7 * SECOND_NS


@pytest.mark.parametrize("text", ["1", "one two three"])
def test_text_is_shown_as_it_grows(text):
    shown = []
    session_with(ScriptedModel(text)).answer(Inquiry(COUNT, time.monotonic_ns(), on_text=shown.append))
    assert shown == [" ".join(text.split()[: n + 1]) for n in range(len(text.split()))]
