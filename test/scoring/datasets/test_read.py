import json

import pytest

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.scoring.datasets.question import without_letters
from spatial_mllm_ros.scoring.datasets.read import LAYOUT_NAMES, read_benchmark


def vsi_row(number, scene="s1", **changes):
    return {
        "id": number,
        "dataset": "scannet",
        "scene_name": scene,
        "question_type": "object_counting",
        "question": "How many chair(s) are in this room?",
        "ground_truth": "4",
        "options": None,
        "pruned": number % 2 == 0,
    } | changes


def videos(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


@pytest.fixture
def vsi_folder(tmp_path):
    videos(tmp_path, "scannet/s1.mp4", "arkitscenes/s2.mp4")
    choice = {"question_type": "route_planning", "options": ["A. Turn Left", "B. Turn Back"], "ground_truth": "B"}
    lines(
        tmp_path / "test.jsonl",
        vsi_row(0),
        vsi_row(1, "s2", dataset="arkitscenes", **choice),
        '{"id": 2, "dataset": "scan',
        vsi_row(3, "gone"),
        vsi_row(1),
        vsi_row(4, question=""),
        "[1, 2]",
        "",
        vsi_row(5),
    )
    return tmp_path


def test_what_cannot_be_used_is_reported_with_its_place_and_the_rest_is_read(vsi_folder, caplog):
    data = read_benchmark("vsi-bench", vsi_folder)
    assert [question.id for question in data.questions] == ["0", "1", "5"]
    assert [(p.place, p.cause) for p in data.problems] == [
        ("test.jsonl, line 3", "broken_line"),
        ("test.jsonl, line 4", "missing_video"),
        ("test.jsonl, line 5", "duplicate_id"),
        ("test.jsonl, line 6", "missing_field"),
        ("test.jsonl, line 7", "broken_line"),
    ]
    assert "scannet/gone" in data.problems[1].message
    assert "line 2" in data.problems[2].message
    assert "line 4: question left out (missing_video)" in caplog.text


def test_vsi_bench_choices_lose_their_letters_and_videos_are_found(vsi_folder):
    question = read_benchmark("vsi-bench", vsi_folder).questions[1]
    assert question.options == ("Turn Left", "Turn Back")
    assert question.truths == ("B",)
    assert question.scene == "arkitscenes/s2"
    assert question.video == vsi_folder / "arkitscenes" / "s2.mp4"


def test_the_debiased_split_is_what_was_not_pruned(vsi_folder):
    assert [q.id for q in read_benchmark("vsi-bench", vsi_folder, split="debiased").questions] == ["1", "5"]
    assert [q.id for q in read_benchmark("vsi-bench", vsi_folder, split="pruned").questions] == ["0"]


def test_a_release_without_the_debiased_split_says_so(tmp_path):
    videos(tmp_path, "scannet/s1.mp4")
    row = vsi_row(0)
    del row["pruned"]
    lines(tmp_path / "test.jsonl", row)
    with pytest.raises(ConfigurationError, match="'pruned'"):
        read_benchmark("vsi-bench", tmp_path, split="debiased")


def test_parquet_and_json_lines_say_the_same(vsi_folder, tmp_path_factory):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (extra 'parquet') is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    other = videos(tmp_path_factory.mktemp("parquet"), "scannet/s1.mp4")
    rows = [vsi_row(0), vsi_row(1, options=["A. x", "B. y"]), vsi_row(2, "gone")]
    lines(vsi_folder / "test.jsonl", *rows)
    parquet.write_table(arrow.Table.from_pylist(rows), other / "test-00000-of-00001.parquet")
    one, two = (read_benchmark("vsi-bench", folder, videos=other) for folder in (vsi_folder, other))
    assert one.questions == two.questions
    assert two.problems[0].place == "test-00000-of-00001.parquet, row 3"


def test_a_name_cannot_lead_out_of_the_folder_of_videos(tmp_path):
    videos(tmp_path, "outside.mp4", "data/scannet/s1.mp4")
    lines(tmp_path / "data" / "test.jsonl", vsi_row(0), vsi_row(1, "../../outside"))
    data = read_benchmark("vsi-bench", tmp_path / "data")
    assert [p.cause for p in data.problems] == ["missing_video"]


def test_a_letter_is_put_into_words_by_its_option_and_all_other_text_stays(vsi_folder):
    number, choice = read_benchmark("vsi-bench", vsi_folder).questions[:2]
    assert [choice.in_words(said) for said in ("B", "a.", " B ")] == ["B. Turn Back", "A. Turn Left", "B. Turn Back"]
    assert [choice.in_words(said) for said in ("C", "Turn Back", "")] == ["C", "Turn Back", ""]
    assert number.in_words("4") == "4"


def test_spatial_mllm_annotations_are_vsi_bench_questions_with_bare_answers(tmp_path):
    videos(tmp_path, "scannet/s1.mp4")
    row = {
        "problem_id": 7,
        "problem": "Which is closest?",
        "problem_type": "multiple choice",
        "original_question_type": "object_rel_distance",
        "options": ["A. bed", "B. sink"],
        "solution": "<answer>B</answer>",
        "path": "scannet/s1.mp4",
    }
    lines(tmp_path / "eval_vsibench.jsonl", row)
    (question,) = read_benchmark("spatial-mllm", tmp_path).questions
    assert (question.benchmark, question.id, question.truths) == ("vsi-bench", "7", ("B",))
    assert question.options == ("bed", "sink")


def test_scanqa_has_several_answers_and_frames_may_be_a_folder(tmp_path):
    videos(tmp_path, "scene0011_00/0.jpg")
    row = {
        "scene_id": "scene0011_00",
        "question_id": "val-scene0011-0",
        "question": "What color is the sink?",
        "answers": ["white", "off white"],
    }
    (tmp_path / "ScanQA_v1.0_val.json").write_text(json.dumps([row, {**row, "question_id": "b", "answers": []}]))
    data = read_benchmark("scanqa", tmp_path)
    assert data.questions[0].truths == ("white", "off white")
    assert data.questions[0].video == tmp_path / "scene0011_00"
    assert (data.problems[0].place, data.problems[0].cause) == ("ScanQA_v1.0_val.json, entry 2", "missing_field")


def test_sqa3d_joins_questions_and_annotations_and_tells_the_situation(tmp_path):
    videos(tmp_path / "videos", "scannet/scene0000_00.mp4")
    question = {"scene_id": "scene0000_00", "situation": "I face the bed.", "question": "Is it dark?"}
    name = "v1_balanced_{}_test_scannetv2.json"
    (tmp_path / name.format("questions")).write_text(
        json.dumps({"questions": [question | {"question_id": 1}, question | {"question_id": 2}]})
    )
    annotation = {"question_id": 1, "answers": [{"answer": "no", "answer_id": 1}]}
    (tmp_path / name.format("sqa_annotations")).write_text(json.dumps({"annotations": [annotation]}))
    data = read_benchmark("sqa3d", tmp_path, videos=tmp_path / "videos")
    (found,) = data.questions
    assert (found.text, found.question_type, found.truths) == ("I face the bed. Is it dark?", "is", ("no",))
    assert "no answer to the question 2" in data.problems[0].message


def test_revsi_and_vsi_super_have_their_own_folders_and_tasks(tmp_path):
    videos(tmp_path, "16_frame/s1.mp4", "long/v1.mp4")
    base = {"id": 1, "question": "How many?", "question_type": "object_counting_single", "ground_truth": "3"}
    lines(tmp_path / "test.jsonl", base | {"scene_id": "s1", "num_frames": 16})
    assert read_benchmark("revsi", tmp_path).questions[0].video.parent.name == "16_frame"
    base = {"question": "How many?", "video_path": "long/v1.mp4"}
    lines(
        tmp_path / "test.jsonl",
        base | {"id": 1, "split": "10mins", "answer": 12},
        base | {"id": 2, "split": "10mins_streaming", "answers": [1, 4]},
        base | {"id": 3, "type": "10mins", "options": ["A. x", "B. y"], "answer": "B"},
    )
    kinds = [q.question_type for q in read_benchmark("vsi-super", tmp_path).questions]
    assert kinds == ["count", "count_streaming", "recall"]
    assert [q.id for q in read_benchmark("vsi-super", tmp_path, split="10mins").questions] == ["1", "3"]


def test_wrong_names_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=", ".join(LAYOUT_NAMES)):
        read_benchmark("mine", tmp_path)
    with pytest.raises(ConfigurationError, match="debiased"):
        read_benchmark("vsi-bench", tmp_path, split="easy")
    with pytest.raises(SourceError, match="no annotation file"):
        read_benchmark("vsi-bench", tmp_path)
    lines(tmp_path / "test.jsonl", "nonsense")
    with pytest.raises(SourceError, match="Not one question"):
        read_benchmark("vsi-bench", tmp_path)
    (tmp_path / "ScanQA_v1.0_val.json").write_text("[{]")
    with pytest.raises(SourceError, match="is not JSON"):
        read_benchmark("scanqa", tmp_path)


def test_letters_are_only_taken_off_when_all_options_have_them():
    assert without_letters(["A. one", "B. two"]) == ("one", "two")
    assert without_letters(["A. one", "two"]) == ("A. one", "two")
