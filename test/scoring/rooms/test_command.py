import json

import pytest

from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.cli import main
from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.scoring.rooms.baselines import VISUAL_INPUTS, Ablation, EncodedClips
from spatial_mllm_ros.scoring.rooms.command import OtherCheckpoint
from spatial_mllm_ros.scoring.rooms.results import read_results, strengths_of
from spatial_mllm_ros.scoring.rooms.room_set import RoomSet
from spatial_mllm_ros.scoring.rooms.run import answer_rooms

from .conftest import SMALL


def test_the_command_compares_all_columns_on_the_same_questions(checkpoint, tmp_path, capsys):
    report, answers = tmp_path / "evaluation.json", tmp_path / "answers.jsonl"
    options = ["--worlds", "3", "--frames", "4", "--compare-frames", "3", "--candidates", "8", "--max-new-tokens", "3"]
    files = ["--json", str(report), "--answers", str(answers), "--also", f"again={checkpoint}:no-vision"]
    assert main(["evaluate", "rooms", "--checkpoint", str(checkpoint), *options, *files]) == 0
    printed = capsys.readouterr().out
    results = read_results(report)
    names = [column["name"] for column in results["columns"]]
    assert names == ["tiny", "no-spatial", "no-vision", "other-room", "again", "most frequent", "class prior", "chance"]
    assert all(name in printed.splitlines()[2] for name in names)
    assert "random weights" in printed
    assert "4 uniform frames of 56x56 pixels" in printed  # what the budget makes of a 640x480 camera
    assert {column["figures"]["macro"]["questions"] for column in results["columns"]} == {
        results["columns"][0]["figures"]["macro"]["questions"]
    }
    assert [(row["frames"], row["choice"]) for row in results["frames"]] == [(3, "uniform"), (3, "space-aware")]
    assert (
        results["frames"][1]["minus_uniform"]["macro"]["low"] <= results["frames"][1]["minus_uniform"]["macro"]["high"]
    )
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    main_rows = [row for row in rows if row["set"] == "frames"]
    assert len(main_rows) == results["questions"]
    assert all(row["answers"]["again"] == row["answers"]["no-vision"] for row in main_rows)
    strengths = strengths_of(results)
    assert [s.gain for s in strengths] == sorted((s.gain for s in strengths), reverse=True)
    assert all(
        s.baseline in ("no-vision", "other-room", "again", "most frequent", "class prior", "chance") for s in strengths
    )
    assert str(tmp_path) not in report.read_text()


def test_a_room_that_one_ablation_cannot_answer_is_left_out_for_all_and_counted(loaded):
    class Fragile(Ablation):
        def answers(self, seen, questions):
            if seen.clip.annotation.name == rooms[0]:
                raise ConfigurationError("No answer about this room.")
            return super().answers(seen, questions)

    rooms = []

    class Remembered(RoomSet):
        def __iter__(self):
            for group in super().__iter__():
                rooms.extend(room.name for room in group)
                yield group

    shared = SpatialMllmAnswerModel(loaded, max_new_tokens=2), VISUAL_INPUTS["no-vision"], EncodedClips()
    run = answer_rooms(Remembered(SMALL), [Ablation("a", *shared), Fragile("b", *shared)])
    assert run.failed == {"CONFIGURATION": 1}
    assert {question.scene for question in run.answers.questions} == set(rooms[1:])
    assert run.answers.scores().shape == (2, len(run.answers.questions))
    assert len(run.walk.texts[0]) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zeros=runs/7:no-vision", ("zeros", "runs/7", "no-vision")),
        ("a=runs/7", ("a", "runs/7", "full")),
        ("a=C:/runs/7", ("a", "C:/runs/7", "full")),
    ],
)
def test_other_checkpoints_are_read(text, expected):
    other = OtherCheckpoint.parse(text)
    assert (other.name, other.folder, other.visual_input) == expected


@pytest.mark.parametrize("text", ["runs/7", "=runs/7", "a=", "a=runs/7:dark"])
def test_malformed_other_checkpoints_are_named(text):
    with pytest.raises(ConfigurationError, match="--also is"):
        OtherCheckpoint.parse(text)


def test_a_file_that_is_no_result_is_named(tmp_path):
    path = tmp_path / "evaluation.json"
    with pytest.raises(SourceError, match="cannot be read"):
        read_results(path)
    path.write_text("{}")
    with pytest.raises(SourceError, match="not a result"):
        read_results(path)


def test_a_file_that_could_not_be_written_is_refused_before_the_work(checkpoint, tmp_path, capsys):
    assert main(["evaluate", "rooms", "--checkpoint", str(checkpoint), "--json", str(tmp_path / "no" / "x.json")]) == 1
    assert "there is no folder" in capsys.readouterr().err
