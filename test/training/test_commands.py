import json

import pytest
import torch

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm


def test_a_new_model_can_be_trained_from_the_command_line(clips, tmp_path, capsys):
    assert (
        main(["train", "new", str(tmp_path / "new"), "--text", str(clips / "train.jsonl"), "--vocabulary", "600"]) == 0
    )
    fresh = load_spatial_mllm(tmp_path / "new")
    assert fresh.identity.random_weights
    assert fresh.tokenizer.size <= 600
    words = ["train", "sft", "--model.checkpoint", str(tmp_path / "new"), "--data.files", str(clips / "train.jsonl")]
    words += ["--data.frames", "2", "--run.out", str(tmp_path / "run"), "--run.steps", "1", "--run.accumulate", "1"]
    assert main([*words, "--run.device", "cpu", "--run.save-dtype", "float16", "--model.trained", "connector"]) == 0
    assert capsys.readouterr().out.strip().endswith(str(tmp_path / "run" / "checkpoint"))
    trained = load_spatial_mllm(tmp_path / "run" / "checkpoint")
    assert trained.model.model.connector.mlp[0].weight.dtype == torch.float16
    assert trained.budget == fresh.budget
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["config"]["model"]["trained"] == ["connector"]


def test_a_required_option_that_is_missing_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "sft", "--data.frames", "2"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "--model.checkpoint" in said
    assert "--run.out" in said


def test_a_folder_that_holds_a_run_is_refused_in_one_line(start, clips, tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    words = ["train", "sft", "--model.checkpoint", str(start), "--data.files", str(clips / "train.jsonl")]
    assert main([*words, "--run.out", str(tmp_path), "--run.device", "cpu"]) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_the_list_of_weights_states_their_terms(capsys):
    assert main(["fetch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("vggt-1b ") and "non-commercial" in line for line in lines)
