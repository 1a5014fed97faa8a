from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_ros.answering.spatial_mllm import FusedAnswerModel
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.prompts import user_text
from spatial_mllm_ros.scene_questions.scene_question import QuestionType
from spatial_mllm_ros.scoring.rooms.baselines import ModelArm, SeenClip, all_views, prompt_of, true_patch_points
from spatial_mllm_ros.scoring.rooms.shared_prefix import shared_prefix_answers


def arm(loaded, view, **options):
    return ModelArm(view, loaded, all_views()[view], options.get("max_new_tokens", 6))


def test_answers_from_a_shared_prefix_are_those_of_each_question_alone(loaded, seen, rooms):
    prepared = seen.prepared(loaded)
    tokens = loaded.model.visual_embeddings(prepared)
    prompts = [prompt_of(question, loaded) for question in rooms[0].questions]
    together = shared_prefix_answers(loaded, prepared, tokens, prompts, max_new_tokens=8)
    alone = [shared_prefix_answers(loaded, prepared, tokens, [prompt], max_new_tokens=8)[0] for prompt in prompts]
    assert together == alone
    assert len(set(map(len, prompts))) > 3  # padded by different amounts
    assert len(set(together)) > 1
    assert shared_prefix_answers(loaded, prepared, tokens, [], max_new_tokens=8) == []


def test_questions_are_put_to_the_model_as_in_training(loaded, rooms):
    questions = [question for room in rooms for question in room.walk_questions]
    assert {question.type for question in questions} == set(QuestionType)
    for question in questions:
        trained = user_text(question.text, question.options, loaded.fusion, numeric=question.type.is_number)
        assert prompt_of(question, loaded) == trained


def test_the_full_arm_answers_as_the_node(loaded, seen, rooms):
    node = FusedAnswerModel(loaded, max_new_tokens=6)
    frames = list(seen.clip.frames())
    evidence = [frames[index] for index in seen.indices]
    context = node.prepare(evidence, epoch=1, should_yield=lambda: False)
    expected = [
        node.generate(question.question, context, should_stop=lambda: False).text for question in rooms[0].questions
    ]
    assert arm(loaded, "full").answers(seen, rooms[0].questions) == expected


@torch.inference_mode()
def test_views_differ_in_what_they_show_only(loaded, seen):
    prepared = seen.prepared(loaded)
    tokens = {name: view.tokens(loaded, seen, prepared) for name, view in all_views().items()}
    assert {value.shape for value in tokens.values()} == {tokens["full"].shape}
    added = loaded.model.model.spatial_tokens(
        prepared.spatial_images, (prepared.height_px // 14, prepared.width_px // 14)
    )
    assert torch.allclose(tokens["full"] - tokens["no-spatial"], added, atol=1e-5)
    assert added.abs().max() > 1e-3
    assert not tokens["blind"].any()
    other = seen.other
    assert torch.equal(tokens["other-room"], loaded.model.visual_embeddings(other.prepared(loaded)))
    assert not torch.allclose(tokens["other-room"], tokens["full"], atol=1e-3)


def test_true_points_are_those_that_training_is_shown(loaded, rooms):
    from spatial_mllm_ros.training.supervision.tokens import token_targets

    clip = rooms[2].clip
    seen = SeenClip(clip, tuple(range(len(clip.stamps_ns))))
    found = true_patch_points(seen, seen.prepared(loaded)).numpy()
    truth = token_targets(clip).patches_m.numpy()
    assert found.shape == truth.shape
    assert np.array_equal(found, truth, equal_nan=True)
    later = SeenClip(clip, (3, 5, 7))  # an odd number, and another first camera
    points = true_patch_points(later, later.prepared(loaded)).numpy()
    assert np.array_equal(points[2], points[3], equal_nan=True)
    assert np.nanmin(points[0, :, 2]) > 0  # before the first camera
    assert arm(loaded, "true-points").answers(seen, rooms[2].questions) != arm(loaded, "full").answers(
        seen, rooms[2].questions
    )


def test_true_points_of_another_size_are_refused(loaded, rooms):
    clip = rooms[2].clip
    seen = SeenClip(replace(clip, depth_m=clip.depth_m[:, ::2, ::2]), (0, 1))
    with pytest.raises(ConfigurationError, match="--size 84x56"):
        arm(loaded, "true-points").answers(seen, rooms[2].questions)


def test_what_does_not_look_says_the_same_whatever_the_room(loaded, seen, rooms):
    elsewhere = SeenClip(rooms[2].clip, rooms[2].uniform, seen)
    questions = rooms[0].questions
    assert arm(loaded, "blind").answers(seen, questions) == arm(loaded, "blind").answers(elsewhere, questions)
    assert arm(loaded, "full").answers(seen, questions) != arm(loaded, "full").answers(elsewhere, questions)
    assert arm(loaded, "other-room").answers(elsewhere, questions) == arm(loaded, "full").answers(seen, questions)
    assert [name for name, view in all_views().items() if not view.looks] == ["blind", "other-room"]


def test_another_room_is_needed_to_be_shown_instead(loaded, seen, rooms):
    with pytest.raises(ConfigurationError, match="at least two"):
        arm(loaded, "other-room").answers(SeenClip(seen.clip, seen.indices), rooms[0].questions)
