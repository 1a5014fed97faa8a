"""The same 16 frames and the same question: the benchmarks and the rooms measure what the node answers."""

import json

import cv2
import pytest

from spatial_mllm_ros.answering.session import SpatialSession
from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.world.world import split_seed
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion
from spatial_mllm_ros.scoring.datasets.read import read_benchmark
from spatial_mllm_ros.scoring.rooms.baselines import VISUAL_INPUTS, Ablation, EncodedClips, SeenClip
from spatial_mllm_ros.scoring.runner.results_file import read_answers
from spatial_mllm_ros.scoring.runner.run import RunConfig, evaluate
from spatial_mllm_ros.scoring.scorers.catalogue import scorer_named

FRAMES = 16
QUESTIONS = (
    SceneQuestion("s", QuestionType.COUNT, "How many chair(s) are in this room?", (), "2", ""),
    SceneQuestion(
        "s",
        QuestionType.DIRECTION_HARD,
        "If I am standing by the sofa and facing the door, is the lamp to my front-left or front-right?\n"
        "The directions refer to the quadrants of a Cartesian plane.",
        ("front-left", "front-right"),
        "A",
        "",
    ),
    SceneQuestion(
        "s",
        QuestionType.DISTANCE,
        "Measuring from the closest point of each object, what is the distance between the bed and the door (in "
        "meters)?",
        (),
        "1.5",
        "",
    ),
)


class Recording(SpatialMllmAnswerModel):
    """Remembers the grid, prompt and text of every answer."""

    def __init__(self, loaded):
        super().__init__(loaded, max_new_tokens=8)
        self.answered = []

    def _generate(self, prompts, prefix, *arguments):
        generations = super()._generate(prompts, prefix, *arguments)
        self.answered += [(prefix.grid_thw, g.prompt, g.text) for g in generations]
        return generations


@pytest.fixture(scope="module")
def clip():
    """A walk in frames that are larger than the checkpoint's."""
    return make_clips([split_seed("test", 5)], ClipConfig(FRAMES, 168, 112))[0]


@pytest.fixture
def by_node(loaded, clip):
    model = Recording(loaded)
    scene = Scene(
        SceneConfig(selected_frames=FRAMES, ring_frames=FRAMES, keyframes=0, rate_hz=0.0), FakeGeometryEncoder()
    )
    for index, frame in enumerate(clip.frames()):
        scene.add(Frame(stamp_ns=1 + index, rgb=frame.rgb))
        scene.process()
    session = SpatialSession(scene, model)
    for question in QUESTIONS:
        assert len(session.ask(question.question).evidence_stamps_ns) == FRAMES
    assert {grid for grid, _, _ in model.answered} == {(FRAMES // 2, 56 // 14, 84 // 14)}  # of the checkpoint's budget
    assert len({text for _, _, text in model.answered}) == len(QUESTIONS)
    return model.answered


def test_a_benchmark_gives_the_prompt_grid_and_text_of_the_node(loaded, clip, by_node, tmp_path):
    folder = tmp_path / "vsi" / "scannet" / "s"
    folder.mkdir(parents=True)
    for index, frame in enumerate(clip.frames()):
        cv2.imwrite(str(folder / f"{index:02d}.png"), cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR))
    rows = [
        {
            "id": number,
            "dataset": "scannet",
            "scene_name": "s",
            "question_type": question.type.value,
            "question": question.text,
            "options": [f"{letter}. {text}" for letter, text in zip("AB", question.options, strict=False)] or None,
            "ground_truth": question.truth,
        }
        for number, question in enumerate(QUESTIONS)
    ]
    (tmp_path / "vsi" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = Recording(loaded)
    data = read_benchmark("vsi-bench", tmp_path / "vsi")
    evaluate(data, model, loaded.fusion, tmp_path / "out", RunConfig(), scorer=scorer_named("vsi-bench"))
    assert model.answered == by_node
    stored = read_answers(tmp_path / "out")
    assert [(stored[str(n)].prompt, stored[str(n)].prediction) for n in range(3)] == [row[1:] for row in by_node]


def test_the_rooms_give_the_prompt_grid_and_text_of_the_node(loaded, clip, by_node):
    model = Recording(loaded)
    full = Ablation("full", model, VISUAL_INPUTS["full"], EncodedClips())
    assert full.answers(SeenClip(clip, tuple(range(FRAMES))), QUESTIONS) == [text for _, _, text in by_node]
    assert model.answered == by_node
