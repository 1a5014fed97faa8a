import json

import pytest

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.scoring.rooms.card import TrainingRun, write_card
from spatial_mllm_ros.storage import sha256_of


def put_run(folder, stage, *, steps, seconds, pool=0, **measured):
    folder.mkdir()
    run = {"out": "/somewhere/run", "batch_size": 4, "accumulate": 2, "seed": 3, "precision": "bf16", "resume": False}
    description = {
        "stage": stage,
        "config": {
            "model": {"checkpoint": "/somewhere/start", "trained": ["connector", "merger"]},
            "run": run,
            "data": {"rooms_pool": pool},
        },
        "data": {"rooms": "0" * 64},
        "start": {"name": "start", "sha256": "ab" * 32},
        "machine": {"cores": 8, "processes": 3, "threads": 2, "gpu": None, "gpus": 0},
    }
    (folder / "run.json").write_text(json.dumps(description))
    rows = [{"step": step, "seconds": seconds} | (measured if step == 2 else {}) for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def put_evaluation(checkpoint, sha256=""):
    weights = sha256_of(*checkpoint.glob("*.safetensors"))
    strength = {"questions": 80, "low": 0.6, "high": 0.8, "baseline_score": 0.4, "baseline": "no-vision"}
    strengths = [
        {"type": "room_size_estimation", "score": 0.7, "gain": 0.3, "gain_low": 0.2, "gain_high": 0.4, **strength},
        {"type": "route_planning", "score": 0.7, "gain": 0.1, "gain_low": -0.1, "gain_high": 0.3, **strength},
    ]
    content = {
        "format": "spatial_mllm_ros/rooms_evaluation",
        "version": 2,
        "model": {"name": "tiny", "sha256": sha256 or weights, "random_weights": False},
        "settings": {"worlds": 90, "split": "test", "camera": "noisy"},
        "strengths": strengths,
        "text": ["| the | table |"],
    }
    (checkpoint / "evaluation.json").write_text(json.dumps(content))


@pytest.fixture
def copied(checkpoint, tmp_path):
    folder = tmp_path / "tiny-rooms"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_card_tells_cost_data_seeds_scores_and_limits(copied, tmp_path, capsys):
    put_evaluation(copied)
    one = put_run(tmp_path / "one", "geometry", steps=3, seconds=1200.0, rotation_median_deg=12.34)
    two = put_run(tmp_path / "two", "sft", steps=1000, seconds=7.2)
    three = put_run(tmp_path / "three", "sft", steps=10, seconds=0.0, pool=3600)
    assert main(["evaluate", "card", str(copied), *(f"--run={run}" for run in (one, two, three))]) == 0
    card = (copied / "README.md").read_text()
    assert capsys.readouterr().out.strip() == str(copied / "README.md")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "# tiny-rooms" in card
    assert "| geometry | 3 | 72 | 1.00 | CPU, 6 of 8 cores | bf16 | 3 | start `abababababab` |" in card
    assert "| sft | 1,000 | 24,000 | 2.00 |" in card
    assert "| sft | 10 | pool of 3,600 | 0.00 |" in card
    assert "3.0 hours in all" in card
    assert "model.trained connector merger" in card
    assert "/somewhere" not in card
    assert "| rotation error, median, degrees | 12.3 |" in card
    assert "| the | table |" in card
    good, bad = card.split("NOT shown to be better")
    assert "room_size_estimation: scores 70 %" in good
    assert "route_planning: right in 70 %" in bad
    assert "56x56 pixels" in card
    assert "say nothing about real rooms" in card


def test_an_evaluation_of_other_weights_is_not_told(copied, tmp_path):
    put_evaluation(copied, sha256="0" * 64)
    card = write_card(copied, [put_run(tmp_path / "one", "sft", steps=2, seconds=1.0)]).read_text()
    assert "Not evaluated yet." in card
    assert "is not known" in card


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(SourceError, match="not the folder of a training run"):
        TrainingRun.read(tmp_path)
    put_run(tmp_path / "new", "sft", steps=0, seconds=1.0)
    with pytest.raises(SourceError, match="has not finished a step"):
        TrainingRun.read(tmp_path / "new")
