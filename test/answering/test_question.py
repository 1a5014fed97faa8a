import pytest

from spatial_mllm_ros.answering.question import AnswerForm, Question
from spatial_mllm_ros.errors import QuestionError


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("How many chairs are in this room?", AnswerForm.COUNT),
        ("How many chairs are within 2 meters of the door?", AnswerForm.COUNT),
        ("How many centimeters long is the table?", AnswerForm.CENTIMETRES),
        ("How many square metres does the room have?", AnswerForm.SQUARE_METRES),
        ("How far is the chair from the door?", AnswerForm.METRES),
        ("What is the distance between the sofa and the TV?", AnswerForm.METRES),
        (
            "What is the length of the longest dimension (length, width, or height) of the bed, "
            "measured in centimeters?",
            AnswerForm.CENTIMETRES,
        ),
        ("What is the size of this room (in square meters)?", AnswerForm.SQUARE_METRES),
        ("What stands left of the sofa?", AnswerForm.TEXT),
    ],
)
def test_the_wording_says_which_kind_of_answer_is_asked_for(text, form):
    assert Question(text).form is form


def test_options_make_a_choice_question_whatever_its_wording():
    assert Question("How far is the chair?", ("near", "far")).form is AnswerForm.CHOICE


@pytest.mark.parametrize(
    ("text", "options", "named"),
    [
        ("", (), "empty"),
        (" \n\t ", (), "empty"),
        ("x" * 1001, (), "1001 characters"),
        ("what\x1b[31m is this?", (), "U+001B at position 4"),
        ("what is\u202e this?", (), "U+202E"),
        ("null \x00 byte", (), "U+0000"),
        ("which?", ("only one",), "1 options"),
        ("which?", ("a", " "), "option 2 is empty"),
        ("which?", ("same", "same"), "the same"),
        ("which?", tuple(map(str, range(27))), "27 options"),
    ],
)
def test_a_malformed_question_is_refused_with_the_cause(text, options, named):
    with pytest.raises(QuestionError, match=named.replace("+", r"\+").replace(" ", r"\s")):
        Question(text, options)


def test_line_breaks_become_spaces_and_the_ends_are_stripped():
    assert Question("  how\r\nmany chairs?\n").text == "how many chairs?"
