from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.prompts import user_text
from spatial_mllm_ros.scene_questions.scene_question import QuestionType
from spatial_mllm_ros.scoring.rooms.baselines import (
    VISUAL_INPUTS,
    Ablation,
    EncodedClips,
    SeenClip,
    true_patch_points,
)


@pytest.fixture(scope="module")
def model(loaded):
    return SpatialMllmAnswerModel(loaded, max_new_tokens=6)


@pytest.fixture(scope="module")
def encoded():
    return EncodedClips()


@pytest.fixture
def ablation(model, encoded):
    """Of one visual input, by its name."""
    return lambda name: Ablation(name, model, VISUAL_INPUTS[name], encoded)


def test_questions_are_put_to_the_model_as_in_training(model, loaded, rooms):
    questions = [question for room in rooms for question in room.walk_questions]
    assert {question.type for question in questions} == set(QuestionType)
    for question in questions:
        trained = user_text(question.text, question.options, loaded.fusion, numeric=question.type.is_number)
        assert model.prompt_of(question.question) == trained


def test_with_the_full_input_each_question_is_answered_as_the_node_answers_it_alone(loaded, ablation, seen, rooms):
    node = SpatialMllmAnswerModel(loaded, max_new_tokens=6)
    frames = list(seen.clip.frames())
    evidence = [frames[index] for index in seen.indices]
    context = node.prepare(evidence, epoch=1, interrupt=lambda: False)
    expected = [
        node.generate(question.question, context, should_stop=lambda: False).text for question in rooms[0].questions
    ]
    assert ablation("full").answers(seen, rooms[0].questions) == expected
    assert len(set(expected)) > 1
    assert ablation("full").answers(seen, []) == []


@torch.inference_mode()
def test_visual_inputs_differ_in_what_they_show_only(model, encoded, seen):
    tokens = {name: given.tokens(encoded, model, seen) for name, given in VISUAL_INPUTS.items()}
    assert {value.shape for value in tokens.values()} == {tokens["full"].shape}
    assert torch.equal(tokens["full"] - tokens["no-spatial"], tokens["full"] - encoded.tokens(model, seen).plain)
    assert (tokens["full"] - tokens["no-spatial"]).abs().max() > 1e-3
    assert not tokens["no-vision"].any()
    assert torch.equal(tokens["other-room"], encoded.tokens(model, seen.other).fused)
    assert not torch.allclose(tokens["other-room"], tokens["full"], atol=1e-3)


def test_true_points_are_those_that_training_is_shown(model, encoded, ablation, rooms):
    from spatial_mllm_ros.training.supervision.tokens import token_targets

    clip = rooms[2].clip
    seen = SeenClip(clip, tuple(range(len(clip.stamps_ns))))
    found = true_patch_points(seen, encoded.tokens(model, seen).grid_thw).numpy()
    truth = token_targets(clip).patches_m.numpy()
    assert found.shape == truth.shape
    assert np.array_equal(found, truth, equal_nan=True)
    later = SeenClip(clip, (3, 5, 7))  # an odd number, and another first camera
    points = true_patch_points(later, encoded.tokens(model, later).grid_thw).numpy()
    assert np.array_equal(points[2], points[3], equal_nan=True)
    assert np.nanmin(points[0, :, 2]) > 0  # before the first camera
    assert ablation("true-points").answers(seen, rooms[2].questions) != ablation("full").answers(
        seen, rooms[2].questions
    )


def test_true_points_of_another_size_are_refused(ablation, rooms):
    clip = rooms[2].clip
    seen = SeenClip(replace(clip, depth_m=clip.depth_m[:, ::2, ::2]), (0, 1))
    with pytest.raises(ConfigurationError, match="--size 84x56"):
        ablation("true-points").answers(seen, rooms[2].questions)


def test_without_the_room_the_answers_are_the_same_whatever_the_room(ablation, seen, rooms):
    elsewhere = SeenClip(rooms[2].clip, rooms[2].uniform, seen)
    questions = rooms[0].questions
    assert ablation("no-vision").answers(seen, questions) == ablation("no-vision").answers(elsewhere, questions)
    assert ablation("full").answers(seen, questions) != ablation("full").answers(elsewhere, questions)
    assert ablation("other-room").answers(elsewhere, questions) == ablation("full").answers(seen, questions)
    assert [name for name, given in VISUAL_INPUTS.items() if not given.sees_room] == ["no-vision", "other-room"]


def test_another_room_is_needed_to_be_shown_instead(ablation, seen, rooms):
    with pytest.raises(ConfigurationError, match="at least two"):
        ablation("other-room").answers(SeenClip(seen.clip, seen.indices), rooms[0].questions)
