import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from spatial_mllm_ros.answering.answer import Answer, ModelIdentity, Status, Timings
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.setup import SessionConfig
from spatial_mllm_ros.cli import main
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import ConfigurationError, EncoderError, SourceError
from spatial_mllm_ros.recordings.bag_writer import write_bag
from spatial_mllm_ros.recordings.question_files import TimedQuestion
from spatial_mllm_ros.recordings.rgbd_folder import RgbdFolder, write_rgbd_folder
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.replay.replay import replay, replay_all
from spatial_mllm_ros.replay.scores import score_of
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.voxels import coarsen


@dataclass
class StandInModel:
    identity: ModelIdentity = field(
        default_factory=lambda: ModelIdentity("stand-in", "0" * 64, "none", "Apache-2.0", random_weights=True)
    )


class StandInSession:
    """A real scene, and a model that says how many frames it was shown."""

    def __init__(self, scene):
        self.scene = scene
        self.model = StandInModel()
        self.asked = []
        self._clock_ns = 0

    def ask(self, question, *, deadline_ns=None):
        selection = self.scene.snapshot.selection
        self.asked.append((question.text, selection.newest_stamp_ns, self.scene.pending))
        self._clock_ns += 12345
        return Answer(
            Status.OK,
            text=f"{len(selection.stamps_ns)} frames",
            confidence=0.25,
            scale_source=selection.scale_source,
            evidence_stamps_ns=selection.stamps_ns,
            model=self.model.identity,
            timings=Timings(total_ns=np.random.default_rng().integers(1, 10**9).item()),
        )


class BlindEncoder:
    name, window_size, anchor_count = "blind", 4, 0

    def encode(self, frames, anchors):
        raise EncoderError("nothing can be seen")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay") / "clip"
    write_rgbd_folder(folder, make_clips([7], ClipConfig(45, 96, 72, rate_hz=15.0))[0].frames())
    return folder


def session(encoder=None, **config):
    settings = {"rate_hz": 7.5, "selected_frames": 6, "ring_frames": 40} | config
    return StandInSession(Scene(SceneConfig(**settings), encoder or SensorDepthEncoder(pixel_stride=1)))


QUESTIONS = (
    TimedQuestion(Question("How many boxes are there?"), truth=13),
    TimedQuestion(Question("Is the wardrobe brown?", ("yes", "no")), at_s=1.0, truth="yes"),
    TimedQuestion(Question("Where did we start?"), at_s=0.0),
    TimedQuestion(Question("And much later?"), at_s=500.0),
)


def without_timings(value):
    if isinstance(value, dict):
        return {key: without_timings(part) for key, part in value.items() if key != "timings"}
    return [without_timings(part) for part in value] if isinstance(value, list) else value


def test_the_report_holds_what_a_reader_needs(recording, tmp_path):
    with open_source(recording) as source:
        replay(source, session(), QUESTIONS, tmp_path / "out", configuration={"frames": 6})
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["source"] == {"kind": "rgbd_folder", "name": "clip"}
    assert report["frames"] == 45
    assert report["left_out"]["thinned"] == 22
    assert report["coverage"]["candidates"] == 23
    assert len(report["selected"]) == len(report["gains"]) == 6
    assert report["selected"] == sorted(report["selected"])
    assert all(isinstance(stamp, int) for stamp in report["selected"])
    first, second, third, _ = report["questions"]
    assert (first["question"], first["truth"], first["status"]) == ("How many boxes are there?", 13, "OK")
    assert (second["options"], second["truth"]) == (["yes", "no"], "yes")
    assert "truth" not in third
    assert third["evidence"] == [1_000_000_000]
    assert first["timings"]["total_ns"] > 0
    assert report["model"]["random_weights"] is True
    assert {"python", "numpy", "torch", "transformers"} <= set(report["versions"])
    assert report["configuration"] == {"frames": 6}
    assert report["rejected"] == {}
    assert (tmp_path / "out" / "coverage.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").glob("*.part"))
    assert str(tmp_path) not in (tmp_path / "out" / "report.json").read_text()


def test_coverage_is_measured_over_the_same_frames_on_the_same_grid(recording, tmp_path):
    run = session()
    with open_source(recording) as source:
        report = replay(source, run, (), tmp_path)
    figures = report.coverage
    known = run.scene.snapshot  # the ring holds everything here, so the scene itself knows the same numbers
    assert figures.selected == report.selection.covered_voxels
    assert figures.total == report.selection.total_voxels
    uniform = [coarsen(p.fine_keys, known.level) for p in known.placed if p.stamp_ns in figures.uniform_stamps_ns]
    assert figures.uniform == len(np.unique(np.concatenate(uniform)))
    assert figures.offline_greedy == figures.selected
    assert 0 < figures.uniform < figures.total
    assert figures.unit == "m"
    assert figures.voxel_size == report.selection.voxel_size


def test_what_the_bounded_scene_has_let_go_counts_for_the_comparison(recording, tmp_path):
    run = session(ring_frames=4, keyframes=2)
    with open_source(recording) as source:
        report = replay(source, run, (), tmp_path)
    assert report.coverage.candidates == 23
    assert report.coverage.total > run.scene.snapshot.selection.total_voxels
    assert report.coverage.selected < report.coverage.offline_greedy


def test_questions_are_asked_when_they_are_due_with_everything_placed(recording, tmp_path):
    run = session()
    with open_source(recording) as source:
        replay(source, run, QUESTIONS, tmp_path)
    texts = [text for text, _, _ in run.asked]
    assert texts == ["Where did we start?", "Is the wardrobe brown?", "How many boxes are there?", "And much later?"]
    newest = {text: stamp for text, stamp, _ in run.asked}
    assert newest["Where did we start?"] == 1_000_000_000
    assert newest["Is the wardrobe brown?"] <= 2_000_000_000 < newest["How many boxes are there?"]
    assert all(pending == 0 for _, _, pending in run.asked)


def test_the_same_input_gives_the_same_bytes_but_for_timings(recording, tmp_path):
    texts = []
    for name in ("one", "two"):
        with open_source(recording) as source:
            replay(source, session(), QUESTIONS, tmp_path / name)
        report = json.loads((tmp_path / name / "report.json").read_text())
        texts.append(json.dumps(without_timings(report)))
    assert texts[0] == texts[1]
    assert (tmp_path / "one" / "coverage.png").read_bytes() == (tmp_path / "two" / "coverage.png").read_bytes()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_of_the_recording_gives_the_same_selection(recording, tmp_path, storage):
    with open_source(recording) as source:
        folder_report = replay(source, session(), QUESTIONS, tmp_path / "folder")
        write_bag(tmp_path / "bag", source, storage=storage)
    with open_source(tmp_path / "bag") as source:
        bag_report = replay(source, session(), QUESTIONS, tmp_path / "out")
    assert bag_report.source_kind == "bag"
    assert bag_report.selection == folder_report.selection
    assert bag_report.coverage == folder_report.coverage


def test_rejected_frames_are_in_the_report_by_cause(recording, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in recording.iterdir():
        (folder / path.name).symlink_to(path)
    for name in ("frame-000008.depth.png", "frame-000012.pose.txt"):
        (folder / name).unlink()
    with open_source(folder) as source:
        report = replay(source, session(), (), tmp_path / "out")
    assert report.frames == 43
    assert report.rejected == {"no_depth": 1, "no_pose": 1}


def test_a_scene_without_geometry_is_reported_and_not_drawn(recording, tmp_path, caplog):
    with open_source(recording) as source:
        report = replay(source, session(BlindEncoder()), QUESTIONS[:1], tmp_path)
    assert report.coverage is None
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["coverage"]["total"] == 0
    assert written["left_out"]["encoder"] == 23
    assert not (tmp_path / "coverage.png").exists()
    assert "No picture" in caplog.text


def answered(**values):
    return Answer(**({"status": Status.OK, "text": "said"} | values))


@pytest.mark.parametrize(
    ("timed", "answer", "score"),
    [
        (TimedQuestion(Question("How far is it?")), answered(value=2.0), None),
        (TimedQuestion(Question("How far is it?"), truth=2.0, tolerance=0.3), answered(value=2.25), 1.0),
        (TimedQuestion(Question("How far is it?"), truth=2.0, tolerance=0.3), answered(value=2.35), 0.0),
        (TimedQuestion(Question("How far is it?"), truth=2.0), answered(value=2.4), 0.7),
        (TimedQuestion(Question("How far is it?"), truth=2.0), answered(), 0.0),
        (TimedQuestion(Question("How many are there?"), truth=0), answered(value=0.0), 1.0),
        (TimedQuestion(Question("Which?", ("a door", "a bed")), truth="a bed"), answered(choice=1), 1.0),
        (TimedQuestion(Question("Which?", ("a door", "a bed")), truth="b"), answered(choice=1), 1.0),
        (TimedQuestion(Question("Which?", ("a door", "a bed")), truth="A"), answered(choice=1), 0.0),
        (TimedQuestion(Question("Which?", ("a door", "a bed")), truth="neither"), answered(choice=1), 0.0),
        (TimedQuestion(Question("What is red?"), truth="the chair"), answered(text="The chair."), 1.0),
        (TimedQuestion(Question("What is red?"), truth="chair"), answered(status=Status.DEADLINE, text="chair"), 0.0),
    ],
)
def test_answers_are_scored_against_truth_and_tolerance(timed, answer, score):
    assert score_of(timed, answer) == (score if score is None else pytest.approx(score))


def test_scores_hashes_and_the_growth_of_coverage_are_in_the_report(recording, tmp_path):
    asked = (
        TimedQuestion(Question("What do you see?"), truth="6 frames", question_type="mine"),
        TimedQuestion(Question("And early?"), at_s=0.0, truth="6 frames"),
    )
    with open_source(recording) as source:
        report = replay(source, session(), asked, tmp_path, configuration={"frames": 6}, hashes={"recording": "ab"})
    written = json.loads((tmp_path / "report.json").read_text())
    assert [q["score"] for q in written["questions"]] == [1.0, 0.0]
    (table,) = written["scores"]
    assert (table["scorer"], table["questions"]) == ("replay", 2)
    assert {f["name"]: f["value"] for f in table["figures"]} == {
        "mine": 1.0,
        "text": 0.0,
        "macro, all": 0.5,
        "micro, all": 0.5,
    }
    assert written["hashes"]["recording"] == "ab"
    assert written["hashes"]["model"] == "0" * 64
    assert len(written["hashes"]["configuration"]) == 64
    samples = report.coverage_over_time
    assert [s.total for s in samples] == sorted(s.total for s in samples)
    assert samples[-1].selected == report.coverage.selected
    assert samples[-1].total == report.coverage.total
    assert all(s.selected <= s.total and s.uniform <= s.total for s in samples)
    assert len(samples) > 5


def test_several_recordings_have_a_folder_each_and_one_page(recording, tmp_path, random_checkpoint):
    with open_source(recording) as source:
        write_bag(tmp_path / "walk", source)
    questions = tmp_path / "questions.yaml"
    questions.write_text(
        "- question: How many boxes are there?\n  truth: 13\n  tolerance: 10 %\n  at: 1\n- question: Where are we?\n"
    )
    arguments = ["replay", str(recording), str(tmp_path / "walk"), "--questions", str(questions)]
    options = ["--frames", "4", "--rate-hz", "3", "--max-new-tokens", "2", "--checkpoint", str(random_checkpoint)]
    for name in ("one", "two"):
        assert main([*arguments, *options, "--out", str(tmp_path / name)]) == 0
    out = tmp_path / "one"
    combined = json.loads((out / "report.json").read_text())
    assert [r["name"] for r in combined["recordings"]] == ["clip", "walk"]
    assert combined["scores"][0]["questions"] == 2
    assert combined["recordings"][0]["hashes"]["recording"] != combined["recordings"][1]["hashes"]["recording"]
    page = (out / "report.html").read_text()
    assert page.count("<h2>Coverage over time of") == 2
    assert "How many boxes are there?" in page
    assert "13 ± 1.3" in page
    for name in ("01_clip", "02_walk"):
        reports = [json.loads((tmp_path / run / name / "report.json").read_text()) for run in ("one", "two")]
        assert without_timings(reports[0]) == without_timings(reports[1])
    with pytest.raises(ConfigurationError, match="3 files of questions were given for 2"):
        replay_all([recording] * 2, [questions] * 3, tmp_path / "x", SessionConfig())


def test_an_output_folder_that_cannot_be_made_is_an_error(recording, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot be written"):
        replay(RgbdFolder(recording), session(), (), tmp_path / "file" / "out")
