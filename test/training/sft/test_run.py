import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError, TrainingError
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.training.config import OptimiserConfig, RunConfig
from spatial_mllm_ros.training.sft.config import PARTS, PartRates, SftConfig, SftDataConfig, SftModelConfig
from spatial_mllm_ros.training.sft.model import choose_trained, part_of
from spatial_mllm_ros.training.sft.run import run_sft

FAST = PartRates(connector=5e-3, merger=5e-3, language=5e-3, vision=5e-3, spatial=5e-3)


def config(start, clips, out, **run):
    steps = {"steps": 6, "batch_size": 2, "accumulate": 2, "device": "cpu", "save_every": 2, "seed": 4, **run}
    return SftConfig(
        model=SftModelConfig(checkpoint=start),
        data=SftDataConfig(files=(clips / "train.jsonl",), frames=4, workers=1),
        run=RunConfig(out=out, **steps),
        rates=FAST,
    )


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out):
    return [(row["step"], row["loss"], row["gradient_norm"], row["lr_connector"]) for row in rows(out)]


def weights(folder):
    return load_spatial_mllm(folder).model.state_dict()


@pytest.fixture(scope="module")
def whole(start, clips, tmp_path_factory):
    """A run of six steps without interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_sft(config(start, clips, out))
    return out


def test_the_loss_falls_and_the_finished_folder_loads(whole, start):
    found = rows(whole)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert found[-1]["loss"] < found[0]["loss"] - 0.5
    loaded = load_spatial_mllm(whole / "checkpoint")
    assert not loaded.identity.random_weights
    assert loaded.identity.licence == "mit"
    assert loaded.budget == load_spatial_mllm(start).budget
    assert (whole / "loss.png").stat().st_size > 1000
    described = json.loads((whole / "run.json").read_text())
    assert described["config"]["run"]["seed"] == 4
    assert len(next(iter(described["data"].values()))) == 64
    assert described["versions"]["torch"] == torch.__version__


def test_only_the_chosen_parts_change(whole, start):
    before, after = weights(start), weights(whole / "checkpoint")
    changed = {part_of(key) for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"connector", "merger", "language"}


def test_a_run_killed_and_resumed_is_the_run_without_interruption_bit_by_bit(whole, start, clips, tmp_path):
    out = tmp_path / "killed"
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_run import config, run_sft\n"
        "from spatial_mllm_ros.training.run_folder import RunFolder\n"
        "def log(self, row, real=RunFolder.log):\n"
        "    real(self, row)\n"
        "    if row['step'] == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "RunFolder.log = log\n"
        "run_sft(config(*map(Path, sys.argv[2:])))\n"
    )
    here = Path(__file__).parent
    arguments = [sys.executable, "-c", script, str(here), str(start), str(clips), str(out)]
    root = here.parents[2]
    killed = subprocess.run(
        arguments, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(rows(out)) == 3
    resumed = config(start, clips, out, resume=True)
    run_sft(resumed)
    assert losses(out) == losses(whole)
    one, other = weights(out / "checkpoint"), weights(whole / "checkpoint")
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_reading_ahead_and_saving_states_change_nothing(whole, start, clips, tmp_path):
    again = config(start, clips, tmp_path / "again", steps=6, save_every=0)
    run_sft(replace(again, data=replace(again.data, workers=0)))
    assert losses(tmp_path / "again") == losses(whole)


def test_a_folder_with_a_run_is_neither_overwritten_nor_continued_with_other_options(whole, start, clips):
    with pytest.raises(TrainingError, match=r"holds a run already; add --run\.resume"):
        run_sft(config(start, clips, whole))
    with pytest.raises(TrainingError, match=r"other values of run\.seed, run\.steps"):
        run_sft(config(start, clips, whole, resume=True, steps=7, seed=5))


def test_bad_samples_are_left_out_counted_and_reported_with_file_and_line(start, clips, tmp_path):
    good = (clips / "train.jsonl").read_text().splitlines()
    (clips / "holed").mkdir()
    (clips / "holed" / "frame_0.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    moved = json.loads(good[0])
    lines = [
        good[0],
        '{"video": "bright", "conversations": [',
        json.dumps({**moved, "video": "not_there"}),
        json.dumps({**moved, "video": "holed"}),
        json.dumps({"video": "bright", "conversations": [{"from": "gpt", "value": "2"}]}),
        "",
        json.dumps(
            {**moved, "conversations": [{"from": "human", "value": "why " * 300}, {"from": "gpt", "value": "x"}]}
        ),
        good[1],
    ]
    data = clips / "broken.jsonl"
    data.write_text("\n".join(lines) + "\n")
    settings = config(start, clips, tmp_path / "run", steps=4)
    run_sft(replace(settings, data=replace(settings.data, files=(data,), max_tokens=250)))
    reported = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert {(row["line"], row["cause"]) for row in reported} == {
        *((2, "json"), (3, "media_missing"), (4, "media"), (5, "fields"), (7, "too_long"))
    }
    assert {row["file"] for row in reported} == {str(data)}
    assert len(reported) == 5
    assert rows(tmp_path / "run")[-1]["bad_samples"] == 5
    assert (tmp_path / "run" / "checkpoint").is_dir()


def test_data_without_one_usable_line_is_refused_at_once(start, clips, tmp_path):
    (clips / "empty.jsonl").write_text("no json\n")
    settings = config(start, clips, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"No line of .* can be used"):
        run_sft(replace(settings, data=replace(settings.data, files=(clips / "empty.jsonl",))))


def test_every_part_can_be_trained_and_recomputing_activations_changes_no_loss(start, clips, tmp_path):
    for name, again in (("plain", False), ("again", True)):
        settings = config(start, clips, tmp_path / name, steps=2)
        model = replace(settings.model, trained=("all",), gradient_checkpointing=again)
        run_sft(replace(settings, model=model, optimiser=OptimiserConfig(warm_up=0.0)))
    before, after = weights(start), weights(tmp_path / "plain" / "checkpoint")
    changed = {part_of(key) for key in before if not torch.equal(before[key], after[key])}
    assert changed == set(PARTS)
    plain, again = rows(tmp_path / "plain"), rows(tmp_path / "again")
    assert [row["loss"] for row in plain] == pytest.approx([row["loss"] for row in again], abs=1e-5)


def test_bf16_keeps_trained_weights_in_float32_and_stays_close(whole, start, clips, tmp_path):
    run_sft(config(start, clips, tmp_path / "half", precision="bf16", save_dtype="float16"))
    assert [row["loss"] for row in rows(tmp_path / "half")] == pytest.approx([r["loss"] for r in rows(whole)], rel=0.03)
    model = load_spatial_mllm(tmp_path / "half" / "checkpoint").model
    assert model.model.connector.mlp[0].weight.dtype == torch.float16


def test_two_processes_make_the_run_of_one(whole, start, clips, tmp_path):
    """The same samples per step, half of them in each process."""
    out, root = tmp_path / "two", Path(__file__).parents[3]
    options = {
        **{"model.checkpoint": start, "data.files": clips / "train.jsonl", "data.frames": 4, "data.workers": 0},
        **{"run.out": out, "run.device": "cpu", "run.steps": 6, "run.seed": 4, "run.batch-size": 2},
        **{f"rates.{part}": 5e-3 for part in PARTS},
        "run.accumulate": 1,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spatial_mllm_ros.cli"]
    subprocess.run(
        [sys.executable, "-m", *launcher, "train", "sft", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=800,
    )
    assert [row["loss"] for row in rows(out)] == pytest.approx([row["loss"] for row in rows(whole)], abs=1e-4)
    one, other = weights(out / "checkpoint"), weights(whole / "checkpoint")
    assert all(torch.allclose(one[key], other[key], atol=1e-4) for key in other)


def test_frozen_parts_ask_for_no_gradient_and_a_misspelled_part_is_named(start):
    model = load_spatial_mllm(start).model
    choose_trained(model, ("connector",), frozen=torch.bfloat16)
    asking = {part_of(name) for name, weight in model.named_parameters() if weight.requires_grad}
    assert asking == {"connector"}
    assert model.model.visual.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    with pytest.raises(ConfigurationError, match="conector"):
        SftModelConfig(checkpoint=start, trained=("conector",))
