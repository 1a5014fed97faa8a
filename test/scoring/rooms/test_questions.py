import json
import re

import pytest

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.recordings.question_files import load_questions
from spatial_mllm_ros.rooms.clips import ClipConfig
from spatial_mllm_ros.rooms.page import write_rooms_page
from spatial_mllm_ros.rooms.world.world import split_seed
from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion
from spatial_mllm_ros.scoring.rooms.language_baselines import class_baseline, constant_baseline, language_scores, score


def number(truth, scene=0, kind=QuestionType.DISTANCE, label="chair"):
    return SceneQuestion(f"s{scene}", kind, "q", (), truth, "", (label,))


def choice(truth, options=("left", "right"), scene=0, kind=QuestionType.DIRECTION_EASY):
    return SceneQuestion(f"s{scene}", kind, "q", options, truth, "", ("chair",))


def test_numbers_are_scored_as_the_official_code_does(golden_dir):
    cases = json.loads((golden_dir / "metrics" / "vsibench_metric_cases.json").read_text())["cases"]
    checked = 0
    for case in cases:
        if case["metric"].startswith("MRA") and re.fullmatch(r"\d+(\.\d+)?", case["prediction"]):
            ours = score(number(case["ground_truth"], kind=QuestionType.COUNT), case["prediction"])
            assert ours == pytest.approx(case["official_thinking_in_space"]), case
            checked += 1
    assert checked > 3


def test_the_constant_is_the_best_single_answer():
    past = [number(truth) for truth in ("1.0", "4.0", "4.2", "3.9", "9.0")]
    assert constant_baseline(past)(number("2.0")) in ("3.9", "4.0", "4.2")
    assert constant_baseline([choice("A"), choice("B"), choice("B")])(choice("A")) == "B"


def test_a_class_that_gives_its_answer_away_is_found_out():
    past = [
        number(t, kind=QuestionType.SIZE, label=lab) for t, lab in (("50", "cup"), ("200", "bed")) for _ in range(4)
    ]
    guess = class_baseline(past)
    assert float(guess(number("1", kind=QuestionType.SIZE, label="bed"))) == 200
    shown = [choice("A", ("sofa", "cup")), choice("B", ("cup", "sofa")), choice("A", ("sofa", "tv"))] * 3
    assert class_baseline(shown)(choice("A", ("cup", "sofa"))) == "B"


def test_baselines_learn_from_other_scenes_only():
    leaky = [number(str(1 + 10 * n), scene=n) for n in range(40)]
    row = language_scores(leaky)["object_abs_distance"]
    assert row["questions"] == 40
    assert row["constant"] < 60
    even = [choice("AB"[n % 2], scene=n) for n in range(200)]
    assert 35 < language_scores(even)["object_rel_direction_easy"]["class prior"] < 65


def test_the_command_writes_balanced_questions_and_says_what_the_baselines_score(tmp_path, capsys):
    out = tmp_path / "q" / "questions.jsonl"
    assert main(["rooms", "questions", "--out", str(out), "--worlds", "4", "--frames", "6", "--per-type", "1"]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {"question", "options", "ground_truth", "question_type", "scene_name"} <= set(lines[0])
    assert {line["scene_name"] for line in lines} <= {f"rooms_{split_seed('val', n):09d}" for n in range(4)}
    printed = capsys.readouterr().out
    assert "class prior" in printed
    assert "object_counting" in printed


def test_the_command_writes_recordings(tmp_path, capsys):
    command = ["rooms", "write", "--out", str(tmp_path), "--format", "video", "--frames", "3", "--size", "64x48"]
    assert main([*command, "--split", "test", "--worlds", "2", "--perfect"]) == 0
    assert len(list(tmp_path.glob("*.mp4"))) == len(list(tmp_path.glob("*.scene.json"))) == 2
    asked = [load_questions(path) for path in tmp_path.glob("*.questions.yaml")]
    assert len(asked) == 2
    assert all(timed.truth is not None for questions in asked for timed in questions)
    assert {timed.question_type for questions in asked for timed in questions} <= {kind.value for kind in QuestionType}
    assert main([*command[:-1], "64"]) == 1
    assert "--size is '64'" in capsys.readouterr().err


def test_the_page_needs_nothing_else_and_shows_plan_frames_and_questions(tmp_path):
    out = tmp_path / "page.html"
    write_rooms_page(out, [split_seed("val", 0)], config=ClipConfig(frames=18, width_px=64, height_px=48))
    page = out.read_text()
    assert page.count("data:image/jpeg;base64,") == 9
    assert "<svg" in page
    assert "How many" in page
    assert not re.search(r"""(src|href)=["']?(?!["']?data:)""", page)
