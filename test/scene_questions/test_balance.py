from collections import Counter

import pytest

from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.scene_questions.balance import AnswerBalancer, balance_table
from spatial_mllm_ros.scene_questions.builder import candidate_questions
from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion


def question(kind, answer_bin, number):
    return SceneQuestion(f"s{number}", kind, f"q{number} {answer_bin}", (), answer_bin, answer_bin, ("chair",))


def test_rare_answers_come_as_often_as_frequent_ones():
    balancer, chosen = AnswerBalancer(), []
    for scene in range(120):
        answers = ["1", "1", "1", "1", "2" if scene % 2 else "1", "3" if scene % 4 == 0 else "1"]
        chosen += balancer.choose([question(QuestionType.COUNT, a, scene) for a in answers])
    counts = Counter(q.bin for q in chosen)
    assert max(counts.values()) <= 1.5 * min(counts.values()) + 3
    assert counts["3"] >= 28  # of the 30 there are


def test_an_answer_that_crowds_out_the_others_is_refused():
    balancer = AnswerBalancer(slack=1.25)
    first = balancer.choose([question(QuestionType.COUNT, "1", 0), question(QuestionType.COUNT, "2", 0)], per_type=2)
    assert len(first) == 2
    later = [balancer.choose([question(QuestionType.COUNT, "1", n)]) for n in range(1, 50)]
    assert sum(map(len, later)) < 10


def test_letters_and_answers_are_even_and_the_right_option_stays_right(scenes):
    balancer, chosen = AnswerBalancer(seed=1), []
    for scene in scenes:
        candidates = candidate_questions(scene, vocabulary=LABELS)
        right = {(q.type, q.objects, q.labels, q.truth_text) for q in candidates}
        picked = balancer.choose(candidates, per_type=4)
        assert {(q.type, q.objects, q.labels, q.truth_text) for q in picked} <= right
        chosen += picked
    for kind in (QuestionType.DIRECTION_HARD, QuestionType.CLOSEST, QuestionType.ORDER):
        letters = Counter(q.truth for q in chosen if q.type is kind)
        assert max(letters.values()) - min(letters.values()) <= 1
    answers = Counter(q.truth_text for q in chosen if q.type is QuestionType.DIRECTION_HARD)
    assert max(answers.values()) - min(answers.values()) <= 2
    for q in chosen:
        if q.type is QuestionType.CLOSEST:
            assert f"({', '.join(q.options)})" in q.text


def test_the_table_counts_answers_and_letters():
    options = SceneQuestion("s", QuestionType.PRESENCE, "q", ("Yes", "No"), "B", "No")
    assert balance_table([options, question(QuestionType.COUNT, "2", 1)]) == {
        "object_counting": {"2": 1},
        "object_presence": {"B of 2": 1, "No": 1},
    }


@pytest.mark.parametrize("per_type", [1, 3])
def test_no_more_than_asked_for_is_chosen(scenes, per_type):
    chosen = AnswerBalancer().choose(candidate_questions(scenes[0], vocabulary=LABELS), per_type=per_type)
    assert max(Counter(q.type for q in chosen).values()) == per_type
