import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_ros.answering.context import VisualContext
from spatial_mllm_ros.answering.model import Generation, ModelOutOfMemoryError
from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.scoring.datasets.read import read_benchmark
from spatial_mllm_ros.scoring.runner.clips import FrameChoice, by_coverage, choose_frames
from spatial_mllm_ros.scoring.runner.results_file import ResultsFile, StoredAnswer, read_answers
from spatial_mllm_ros.scoring.runner.run import RunConfig, evaluate, finish
from spatial_mllm_ros.scoring.runner.sharding import Shard
from spatial_mllm_ros.scoring.scorers.catalogue import scorer_named, scorers_of

ROOT = Path(__file__).resolve().parents[3]
IDENTITY = ModelIdentity("stand-in", "1" * 64, "none", "Apache-2.0", random_weights=True)


class CountingModel:
    """Answers with the number of frames it saw, and remembers what it was asked."""

    identity = IDENTITY

    def __init__(self):
        self.asked = []

    def prepare(self, frames, *, epoch, interrupt, pause_requested=lambda: False):
        return VisualContext(epoch, tuple(frame.stamp_ns for frame in frames), IDENTITY.sha256, 0, prefix=None)

    def generate_all(self, prompts, context):
        self.asked += prompts
        return [Generation(str(len(context.stamps_ns)), 1.0, True, prompt, 1) for prompt in prompts]


def write_benchmark(folder, clips=6, per_clip=3):
    rows = []
    for clip in range(clips):
        frames = folder / "scannet" / f"s{clip}"
        frames.mkdir(parents=True)
        for i in range(clip + 2):
            cv2.imwrite(str(frames / f"{i}.png"), np.full((24, 32, 3), 10 * i + clip, np.uint8))
        rows += [
            {
                "id": 10 * clip + i,
                "dataset": "scannet",
                "scene_name": f"s{clip}",
                "question_type": ("object_counting", "route_planning", "room_size_estimation")[i % 3],
                "question": f"Question {i} about {clip}?",
                "options": ["A. x", "B. y"] if i % 3 == 1 else None,
                "ground_truth": "B" if i % 3 == 1 else "4",
            }
            for i in range(per_clip)
        ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_benchmark(tmp_path_factory.mktemp("vsi"))


def run_all(folder, out, model=None, config=None, **options):
    data = read_benchmark("vsi-bench", folder)
    model, config = model or CountingModel(), config or RunConfig(frames=4)
    scorers = scorers_of("vsi-bench")
    failed = evaluate(data, model, Fusion.V1_1, out, config, scorer=scorers[0], **options)
    tables = finish(data, out, scorers, model=vars(IDENTITY), config=config)
    return tables, failed


def test_every_question_is_answered_scored_and_reported(folder, tmp_path):
    tables, failed = run_all(folder, tmp_path)
    assert not failed
    official = tables[0]
    assert (official.answered, official.questions) == (18, 18)
    assert official.title.startswith(
        "vsi-bench, split full, scorer thinking-in-space, stand-in, 4 uniform frames, 18 of"
    )
    results = json.loads((tmp_path / "results.json").read_text())
    last = results["questions"][-1]
    assert (last["prediction"], last["frames"]) == ("4", [0, 2, 4, 6])
    assert last["scores"]["thinking-in-space"] == 1.0
    assert results["questions"][0]["prediction"] == "2"
    report = json.loads((tmp_path / "report.json").read_text())
    assert {score["scorer"] for score in report["scores"]} == {scorer.name for scorer in scorers_of("vsi-bench")}
    assert all({"low", "high", "interval", "questions"} <= figure.keys() for figure in report["scores"][0]["figures"])
    assert "Question 2 about 5?" in (tmp_path / "report.html").read_text()


def test_a_finished_question_is_never_asked_again(folder, tmp_path):
    run_all(folder, tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    again = CountingModel()
    run_all(folder, tmp_path, again)
    assert again.asked == []
    assert (tmp_path / "results.json").read_bytes() == before


_CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_run
from pathlib import Path
from spatial_mllm_ros.scoring.runner.results_file import ResultsFile
left = [{after}]
def append(self, values, real=ResultsFile._append):
    if left[0] == 0:
        self._file.write(b'{{"id": "torn", "predic')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(self, values)
ResultsFile._append = append
test_run.run_all(Path({folder!r}), Path({out!r}))
"""


def test_killed_while_it_writes_an_answer_it_goes_on_to_the_same_final_file(folder, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_all(folder, whole)
    kills = np.random.default_rng(5).integers(0, 8, size=2)  # after so many lines of each attempt
    for after in kills:
        script = _CHILD.format(tests=str(Path(__file__).parent), after=after, folder=str(folder), out=str(broken))
        child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
        assert child.returncode == -signal.SIGKILL, child.stderr
        assert not (broken / "results.json").exists()
    finished = len(read_answers(broken))
    assert finished == sum(kills) - 1  # the first line of all says what the run depends on
    model = CountingModel()
    run_all(folder, broken, model)
    assert len(model.asked) == 18 - finished
    assert (broken / "results.json").read_bytes() == (whole / "results.json").read_bytes()


def test_processes_share_the_clips_and_merge_to_the_same_file(folder, tmp_path):
    run_all(folder, tmp_path / "alone")
    models = [CountingModel() for _ in range(3)]
    data = read_benchmark("vsi-bench", folder)
    for rank, model in enumerate(models):
        shard = Shard.from_environment({"RANK": str(rank), "WORLD_SIZE": "3"})
        evaluate(
            data,
            model,
            Fusion.V1_1,
            tmp_path / "many",
            RunConfig(frames=4),
            scorer=scorer_named("vsi-bench"),
            shard=shard,
        )
    assert [len(model.asked) for model in models] == [6, 6, 6]
    finish(data, tmp_path / "many", scorers_of("vsi-bench"), model=vars(IDENTITY), config=RunConfig(frames=4))
    assert (tmp_path / "many" / "results.json").read_bytes() == (tmp_path / "alone" / "results.json").read_bytes()


def test_answers_of_other_settings_are_never_mixed_in(folder, tmp_path):
    run_all(folder, tmp_path)
    with pytest.raises(ConfigurationError, match="frames: 4 then, 8 now"):
        run_all(folder, tmp_path, config=RunConfig(frames=8))


def test_two_processes_cannot_write_one_file(tmp_path):
    with (
        ResultsFile(tmp_path, rank=0, settings={"a": 1}),
        pytest.raises(ConfigurationError, match="Another process"),
    ):
        ResultsFile(tmp_path, rank=0, settings={"a": 1})


def test_a_damaged_line_inside_the_file_is_named(tmp_path):
    with ResultsFile(tmp_path, rank=0, settings={}) as results:
        results.append(StoredAnswer("1", "x", "p", (0,), 0.1))
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"{nonsense\n" + path.read_bytes())
    with pytest.raises(SourceError, match="line 1 is damaged"):
        read_answers(tmp_path)


def test_a_clip_that_cannot_be_read_costs_its_own_questions_only_and_is_tried_again(tmp_path, caplog):
    folder = write_benchmark(tmp_path / "data", clips=3)
    broken = folder / "scannet" / "s1" / "0.png"
    good = broken.read_bytes()
    broken.write_bytes(b"no image")
    tables, failed = run_all(folder, tmp_path / "out")
    assert dict(failed) == {"SOURCE": 3}
    assert (tables[0].answered, tables[0].questions) == (6, 9)
    assert "3 not answered" in tables[0].title
    assert "Questions: 10, 11, 12" in caplog.text
    broken.write_bytes(good)
    tables, failed = run_all(folder, tmp_path / "out")
    assert not failed
    assert tables[0].answered == 9


def test_a_clip_that_does_not_fit_into_memory_costs_its_own_questions_only(folder, tmp_path):
    class SmallMemory(CountingModel):
        def prepare(self, frames, **options):
            if len(frames) > 3:
                raise ModelOutOfMemoryError(f"{len(frames)} frames")
            return super().prepare(frames, **options)

    tables, failed = run_all(folder, tmp_path, SmallMemory())
    assert dict(failed) == {"OUT_OF_MEMORY": 12}
    assert tables[0].answered == 6


def test_uniform_frames_come_from_videos_as_from_folders(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for i in range(21):
        writer.write(np.full((48, 64, 3), 10 * i, np.uint8))
    writer.release()
    chosen = choose_frames(tmp_path / "clip.mp4", 5)
    assert chosen.indices == (0, 5, 10, 15, 20)
    assert [round(image.mean() / 10) for image in chosen.images] == [0, 5, 10, 15, 20]
    assert len(choose_frames(tmp_path / "clip.mp4", 50).indices) == 21
    (tmp_path / "broken.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match="cannot be opened"):
        choose_frames(tmp_path / "broken.mp4", 5)


class SideBySideEncoder:
    """Sees one wall of its own in every third frame, the same one in the others."""

    name, window_size, anchor_count = "stand-in", 64, 0

    def encode(self, frames, anchors):
        from spatial_mllm_ros.encoders.base import FrameGeometry, ScaleSource
        from spatial_mllm_ros.geometry.cameras import Intrinsics

        grid = np.stack(np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 12), [0.5]), -1).reshape(12, 16, 3)
        made = []
        for i, _ in enumerate(frames):
            points = (grid + np.array([2.0 * (i if i % 3 == 0 else 1), 0, 0])).astype(np.float32)
            made.append(
                FrameGeometry(
                    points, np.ones((12, 16), np.float32), np.eye(4), Intrinsics(9, 9, 8, 6, 16, 12), ScaleSource.MODEL
                )
            )
        return made


def test_space_aware_frames_are_those_that_show_more(folder):
    clip = folder / "scannet" / "s5"  # seven frames
    chosen = choose_frames(clip, 3, candidates=7, space_aware=by_coverage(SideBySideEncoder()))
    assert chosen.indices == (0, 1, 3)  # the places seen in their order; 2, 4 and 5 show again what 1 shows
    assert len(chosen.images) == 3
    assert choose_frames(clip, 3).indices == (0, 3, 6)


@pytest.mark.parametrize(
    ("environment", "message"),
    [({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2"), ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'")],
)
def test_a_launcher_that_sets_nonsense_is_refused(environment, message):
    with pytest.raises(ConfigurationError, match=message):
        Shard.from_environment(environment)


def test_impossible_configurations_are_refused():
    with pytest.raises(ConfigurationError, match="frames is 0"):
        RunConfig(frames=0)
    with pytest.raises(ConfigurationError, match="8 candidates are too few"):
        RunConfig(choice=FrameChoice.SPACE_AWARE, candidates=8)


def test_the_command_answers_and_batches_do_not_change_answers(folder, tmp_path, random_checkpoint):
    from spatial_mllm_ros.cli import main

    os.environ.pop("RANK", None)
    texts = []
    for size in ("1", "3"):
        out = tmp_path / size
        arguments = ["evaluate", "vsi-bench", str(folder), "--out", str(out), "--frames", "2", "--limit", "3"]
        assert (
            main([*arguments, "--batch-size", size, "--max-new-tokens", "3", "--checkpoint", str(random_checkpoint)])
            == 0
        )
        texts.append([row["prediction"] for row in json.loads((out / "results.json").read_text())["questions"]])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 3
