import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.answering.parsing import answer_text, parse_answer
from spatial_mllm_ros.answering.question import Question

COUNT = Question("How many chairs are in this room?")
METRES = Question("How far is the chair from the door?")
CENTIMETRES = Question("How long is the table, in centimeters?")
AREA = Question("What is the size of this room (in square meters)?")
CHOICE = Question("Which is closest to the tv?", ("chair", "sofa", "door"))


@pytest.mark.parametrize(
    ("question", "text", "value"),
    [
        (COUNT, "4", 4.0),
        (COUNT, "There are four chairs.", 4.0),
        (COUNT, "2.5", None),
        (COUNT, "one or two", None),
        (METRES, "1.8", 1.8),
        (METRES, "1.8 m.", 1.8),
        (METRES, "about 250 cm", 2.5),
        (METRES, "between 1 and 2 meters", None),
        (METRES, "12 m2", None),
        (METRES, "-3", None),
        (METRES, "1,5", None),
        (CENTIMETRES, "1.2 meters", 120.0),
        (CENTIMETRES, "90 mm", 9.0),
        (AREA, "23.5 square meters", 23.5),
        (AREA, "23.5 m²", 23.5),
        (AREA, "5 m", None),
        (METRES, "far away", None),
    ],
)
def test_a_number_is_read_in_the_unit_asked_for_and_only_when_it_is_unambiguous(question, text, value):
    parsed = parse_answer(question, text)
    assert parsed.value == (None if value is None else pytest.approx(value))
    assert parsed.fits == (value is not None)


@pytest.mark.parametrize(
    ("text", "choice"),
    [("B", 1), ("B.", 1), ("(C)", 2), ("A. chair", 0), ("sofa", 1), ("Door.", 2), ("D", None), ("Because", None)],
)
def test_a_choice_is_a_letter_of_an_option_or_its_text(text, choice):
    parsed = parse_answer(CHOICE, text)
    assert parsed.choice == choice
    assert parsed.text == (text if choice is None else CHOICE.options[choice])


def test_the_last_answer_block_counts_and_white_space_collapses():
    assert answer_text("<think>3?</think><answer>2</answer> no, <answer> 4\n chairs </answer>") == "4 chairs"


def test_free_text_is_passed_on_as_it_is():
    assert parse_answer(Question("What is left of the sofa?"), "a  lamp\n").text == "a lamp"


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fail_and_a_number_is_never_negative(text):
    for question in (COUNT, METRES, AREA, CHOICE):
        parsed = parse_answer(question, text)
        assert parsed.value is None or parsed.value >= 0
        assert parsed.choice is None or 0 <= parsed.choice < 3
