import numpy as np
import pytest

from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion
from spatial_mllm_ros.scoring.rooms.table import MACRO, compare, score_answer, text_table
from spatial_mllm_ros.scoring.scorers.base import ScoredQuestion
from spatial_mllm_ros.scoring.scorers.vsi_bench import figures


def question(kind, scene=0, truth="A", options=("left", "right")):
    return SceneQuestion(f"s{scene}", kind, "q", () if kind.is_number else options, truth, "")


def all_types(rooms):
    return [question(kind, scene, "2" if kind.is_number else "A") for scene in range(rooms) for kind in QuestionType]


def test_answers_are_scored_by_the_official_rules():
    assert score_answer(question(QuestionType.DISTANCE, truth="1.5"), "1.8") == pytest.approx(0.6)
    assert score_answer(question(QuestionType.DISTANCE, truth="1.5"), "far") == 0
    assert score_answer(question(QuestionType.DIRECTION_EASY), "A. left") == 1
    assert score_answer(question(QuestionType.DIRECTION_EASY), "(A)") == 0
    assert score_answer(question(QuestionType.PRESENCE, truth="B"), "B.") == 1


def test_values_and_averages_are_those_of_the_benchmark():
    questions = [q for q in all_types(9) if q.type is not QuestionType.PRESENCE]
    rng = np.random.default_rng(3)
    scores = np.where(
        [q.type.is_number for q in questions], rng.random(len(questions)), rng.random(len(questions)) < 0.4
    )
    ours = compare(questions, scores[None]).columns[0]
    published = {
        figure.name: figure.value
        for figure in figures(
            [
                ScoredQuestion(q.type.value, q.scene, "", (q.truth,), float(s))
                for q, s in zip(questions, scores, strict=True)
            ]
        )
    }
    for name in ("object_counting", "object_rel_direction", "route_planning"):
        assert ours[name].value == pytest.approx(published[name])
    assert ours[MACRO].value == pytest.approx(published["macro, all"])
    assert ours[MACRO].questions == 90


def test_presence_has_its_row_and_no_part_in_the_average():
    questions = all_types(4)
    scores = np.array([[float(q.type is QuestionType.PRESENCE) for q in questions]])
    row = compare(questions, scores).columns[0]
    assert row["object_presence"].value == 1
    assert row[MACRO].value == 0


def test_differences_are_paired_by_room():
    # One column is a tenth better in every room, whatever the room: the difference is certain, the scores are not.
    questions = [question(QuestionType.ROOM, scene, "10") for scene in range(40)]
    rng = np.random.default_rng(0)
    one = rng.uniform(0, 0.9, 40)
    table = compare(questions, np.stack([one + 0.1, one]))
    difference = table.differences[0][1]["room_size_estimation"]
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))
    assert table.columns[0]["room_size_estimation"].high - table.columns[0]["room_size_estimation"].low > 0.1
    assert table.differences[1][0][MACRO].value == pytest.approx(-0.1)


def test_all_right_is_not_certainty():
    table = compare([question(QuestionType.ROUTE, scene) for scene in range(10)], np.ones((1, 10)))
    assert table.columns[0]["route_planning"].low < 0.8
    assert "object_counting" not in table.columns[0]


def test_the_text_has_all_columns_and_marks_what_is_missing():
    table = compare(all_types(5), np.stack([np.ones(55), np.zeros(55)]))
    lines = text_table(["tiny", "chance"], [table.columns[0], {}])
    assert lines[0].split("|")[2:4] == [part for part in lines[0].split("|")[2:4] if "tiny" in part or "chance" in part]
    assert len({len(line) for line in lines}) == 1
    macro = next(line for line in lines if line.startswith("| macro"))
    assert "100.0 ±" in macro
    assert "| " + "-".rjust(6) in macro
