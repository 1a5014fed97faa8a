import pytest

from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.errors import QuestionError
from spatial_mllm_ros.recordings.question_files import TimedQuestion, load_questions, save_questions


def load(tmp_path, text):
    path = tmp_path / "ask.yaml"
    path.write_text(text, encoding="utf-8")
    return load_questions(path)


def test_all_fields_are_read(tmp_path):
    first, second, third = load(
        tmp_path,
        """
        - question: How many chairs are there?
          truth: 4
        - question: Is the door open?
          options: [yes, no]
          at: 2.5
          truth: yes
        - {question: "How far is the table from the door?", truth: 3.25}
        """,
    )
    assert (first.question.text, first.question.options, first.at_s, first.truth) == (
        "How many chairs are there?", (), None, 4,
    )  # fmt: skip
    assert (second.question.options, second.at_s, second.truth) == (("yes", "no"), 2.5, "yes")
    assert third.truth == 3.25


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- question: ''", "entry 1: The question is empty"),
        ("- question: a?\n- questoin: b?", "entry 2: unknown field 'questoin'"),
        ("- question: [a, b]", "entry 1, field 'question': expected a text, got a list"),
        ("- truth: 3", "entry 1, field 'question': expected a text, got nothing"),
        ("- question: a?\n  options: yes", "entry 1, field 'options': expected a list"),
        ("- question: a?\n  options: [x]", "entry 1: The question has 1 options"),
        ("- question: a?\n  at: later", "entry 1, field 'at': expected seconds"),
        ("- question: a?\n  at: -1", "entry 1, field 'at'"),
        ("- question: a?\n  at: .nan", "entry 1, field 'at'"),
        ("- question: a?\n  truth: [1]", "entry 1, field 'truth'"),
        ("- question: a?\n  options: [x, y]\n  truth: z", "entry 1, field 'truth': expected the text or the letter"),
        ("- question: a?\n  options: [x, y]\n  truth: 2", "entry 1, field 'truth': expected the text or the letter"),
        ("- just a text", "entry 1: expected a mapping"),
        ("question: a?", "must hold a list"),
        ("", "must hold a list"),
        ("- question: 'a?", "not valid YAML"),
    ],
)
def test_a_mistake_is_named_by_file_entry_and_field(tmp_path, text, complaint):
    with pytest.raises(QuestionError) as caught:
        load(tmp_path, text)
    assert "ask.yaml" in str(caught.value)
    assert complaint in str(caught.value)


def test_questions_that_are_saved_are_loaded_as_they_were(tmp_path):
    questions = (
        TimedQuestion(Question("How far is it: 2, or \u00e4hnlich?"), at_s=2.5, truth=3.25, tolerance=0.5),
        TimedQuestion(Question("Is it open?", ("yes", "1.50")), truth="yes", question_type="door"),
        TimedQuestion(Question("How many?"), truth=4),
        TimedQuestion(Question("Where?"), truth="on the left"),
    )
    save_questions(tmp_path / "ask.yaml", questions)
    assert load_questions(tmp_path / "ask.yaml") == questions


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(QuestionError, match=r"nowhere.yaml cannot be read"):
        load_questions(tmp_path / "nowhere.yaml")


def test_yaml_cannot_make_objects(tmp_path):
    with pytest.raises(QuestionError):
        load(tmp_path, "- !!python/object/apply:os.system ['true']")


def test_a_tolerance_is_in_the_unit_of_the_truth_or_a_share_of_it(tmp_path):
    path = tmp_path / "q.yaml"
    path.write_text(
        "- {question: a, truth: 2.5, tolerance: 10 %, type: far}\n- {question: b, truth: 4, tolerance: 1}\n"
    )
    first, second = load_questions(path)
    assert (first.tolerance, first.question_type, first.truth_text) == (0.25, "far", "2.5 ± 0.25")
    assert (second.tolerance, second.question_type, second.truth_text) == (1.0, "text", "4 ± 1")


@pytest.mark.parametrize(("truth", "index"), [("a bed", 0), ("A Bed.", 0), ("b", 1), ("A", 0), ("2.50", 2)])
def test_the_truth_of_a_choice_names_an_option_by_its_text_or_letter(tmp_path, truth, index):
    (timed,) = load(tmp_path, f"- {{question: Which, options: [a bed, a door, 2.50], truth: {truth}}}\n")
    assert timed.right_option == index
    assert timed.truth_text == ("a bed", "a door", "2.50")[index]


@pytest.mark.parametrize(
    ("fields", "named"),
    [("truth: left, tolerance: 1", "left"), ("truth: 2, tolerance: wide", "wide"), ("truth: 2, tolerance: -1", "-1")],
)
def test_a_tolerance_that_means_nothing_is_refused(tmp_path, fields, named):
    path = tmp_path / "q.yaml"
    path.write_text(f"- {{question: a, {fields}}}\n")
    with pytest.raises(QuestionError, match=f"'tolerance'.*{named}"):
        load_questions(path)
