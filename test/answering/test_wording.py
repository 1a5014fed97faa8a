import pytest

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.wording import benchmark_wording, checkpoint_prompt
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion

DISTANCE = (
    "Measuring from the closest point of each object, what is the distance between the {} and the {} (in meters)?"
)


@pytest.mark.parametrize(
    ("plain", "asked"),
    [
        ("How far is the chair from the door?", DISTANCE.format("chair", "door")),
        ("how far away is a coffee table from the TV in this room?", DISTANCE.format("coffee table", "TV")),
        ("What's the distance between the sofa and the lamp", DISTANCE.format("sofa", "lamp")),
        ("How many tables?", "How many tables are in this room?"),
        ("how many trash bins are there in the scene?", "How many trash bins are in this room?"),
        (
            "How big is the room?",
            "What is the size of this room (in square meters)? If multiple rooms are shown, estimate the size of the "
            "combined space.",
        ),
    ],
)
def test_a_plain_question_is_asked_in_the_benchmark_wording(plain, asked):
    assert benchmark_wording(plain) == asked


@pytest.mark.parametrize(
    "text",
    [
        "How many chairs stand between the door and the window?",
        "How far could a robot drive?",
        "If I am standing by the stove and facing the tv, is the sofa to my left or my right?",
        "How many chairs are in this room?",
    ],
)
def test_a_question_with_another_meaning_is_not_reworded(text):
    assert benchmark_wording(text) == text


def test_rewording_keeps_the_kind_of_answer():
    for plain in ("How far is the chair from the door?", "How many tables?", "How big is this room?"):
        assert Question(benchmark_wording(plain)).form is Question(plain).form


def test_the_second_line_of_a_direction_question_is_a_line_again():
    asked = "Is it to my left, right, or back? An object is to my back if I would have to turn at least 135 degrees."
    assert benchmark_wording(asked) == asked.replace("? An", "?\nAn")


@pytest.mark.parametrize("fusion", list(Fusion))
def test_line_breaks_in_a_question_do_not_change_its_prompt(fusion):
    lines = "Is it to my left?\nAn object is to my back if I would have to turn at least 135 degrees."
    options = ("left", "right")
    assert checkpoint_prompt(lines, options, fusion, numeric=False) == checkpoint_prompt(
        Question(lines).text, options, fusion, numeric=False
    )
