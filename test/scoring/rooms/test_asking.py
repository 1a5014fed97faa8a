import json
from collections import Counter

import pytest

from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion
from spatial_mllm_ros.scoring.rooms.asking import (
    KnownStrengths,
    known_strengths,
    questions_to_ask,
    score_in_words,
    strength_in_words,
    summary_lines,
    truth_in_words,
)
from spatial_mllm_ros.scoring.rooms.results import Strength
from spatial_mllm_ros.storage import sha256_of


def strength(kind, gain, *, sure=True):
    return Strength(kind.value, 50, 0.5 + gain, 0.4, 0.7, 0.5, "class prior", gain, 0.01 if sure else -0.01, 0.3)


GOOD = (
    strength(QuestionType.PRESENCE, 0.2),
    strength(QuestionType.SIZE, 0.15),
    strength(QuestionType.COUNT, 0.1),
    strength(QuestionType.DISTANCE, 0.05, sure=False),
)


def test_what_the_checkpoint_is_good_at_is_asked_in_turn(rooms):
    scene = rooms[0].clip.annotation
    asked = questions_to_ask(scene, GOOD, count=6)
    assert [q.type for q in asked[:3]] == [QuestionType.PRESENCE, QuestionType.SIZE, QuestionType.COUNT]
    assert Counter(q.type for q in asked) == dict.fromkeys((QuestionType(s.type) for s in GOOD[:3]), 2)
    assert len({q.text for q in asked}) == 6
    assert asked == questions_to_ask(scene, GOOD, count=6)  # chance, but the same each time


def test_a_checkpoint_that_is_good_at_little_is_asked_its_next_best_too(rooms):
    asked = questions_to_ask(rooms[0].clip.annotation, (GOOD[0], *GOOD[3:]), count=4)
    assert {q.type for q in asked} == {QuestionType.PRESENCE, QuestionType.DISTANCE}


def test_all_types_are_asked_about_where_nothing_is_known(rooms):
    asked = questions_to_ask(rooms[0].clip.annotation, (), count=5)
    assert len({q.type for q in asked}) == 5


def test_the_evaluation_beside_the_weights_counts_only_for_these_weights(checkpoint, tmp_path, caplog):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert known_strengths(folder) == KnownStrengths()
    content = {
        "format": "spatial_mllm_ros/rooms_evaluation",
        "version": 2,
        "model": {"sha256": sha256_of(*folder.glob("*.safetensors"))},
        "settings": {"worlds": 90, "split": "test", "camera": "perfect"},
        "strengths": [vars(GOOD[1])],
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    known = known_strengths(folder)
    assert (known.of, known.rooms, known.camera) == ((GOOD[1],), "90 unseen rooms", "perfect")
    assert known.named(QuestionType.SIZE) == GOOD[1]
    assert known.named(QuestionType.ROUTE) is None
    content["model"]["sha256"] = "0" * 64
    (folder / "evaluation.json").write_text(json.dumps(content))
    assert known_strengths(folder) == KnownStrengths()
    assert "about other weights" in caplog.text


@pytest.mark.parametrize(
    ("kind", "truth", "options", "said", "told", "score"),
    [
        (QuestionType.DISTANCE, "1.5", (), "1.8", "1.5 m", "scores 60 of 100"),
        (QuestionType.COUNT, "2", (), "2", "2", "scores 100 of 100"),
        (QuestionType.ROUTE, "B", ("left", "right"), "B", "right", "right"),
        (QuestionType.ROUTE, "B", ("left", "right"), "right", "right", "right"),
        (QuestionType.ROUTE, "B", ("left", "right"), "left", "right", "wrong"),
        (QuestionType.PRESENCE, "A", ("Yes", "No"), "B", "Yes", "wrong"),
    ],
)
def test_truth_and_score_are_said_in_words(kind, truth, options, said, told, score):
    question = SceneQuestion("s", kind, "q", options, truth, "")
    assert truth_in_words(question) == told
    assert score_in_words(question, said).startswith(score)


def test_what_it_is_not_good_at_is_said():
    assert "right in 70 % (95 %: 40 to 70) of 50 questions about 90 rooms" in strength_in_words(GOOD[0], "90 rooms")
    assert "the best baseline without the room 50 %" in strength_in_words(GOOD[0], "90 rooms")
    lines = summary_lines(KnownStrengths(GOOD, "90 rooms"))
    middle = next(n for n, line in enumerate(lines) if line.startswith("NOT"))
    assert any("object_presence" in line for line in lines[:middle])
    assert "object_abs_distance" in lines[-1]
    assert summary_lines(KnownStrengths(GOOD[3:]))[1].strip() == "nothing"
    assert "not known" in summary_lines(KnownStrengths())[0]
