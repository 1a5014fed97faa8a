from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_ros.answering.fused import FusedAnswerModel
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints import load_spatial_mllm
from spatial_mllm_ros.models.prefix_build import PrefixBuild
from spatial_mllm_ros.models.preparation import TRAINING_BUDGET, PixelBudget, prepare_video
from spatial_mllm_ros.models.prompts import build_inputs
from spatial_mllm_ros.models.random_checkpoint import write_random_checkpoint

QUESTION = Question("How far is the chair from the door?")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "random-tiny"
    write_random_checkpoint(folder)
    return load_spatial_mllm(folder)


@pytest.fixture(scope="module")
def frames():
    random = np.random.default_rng(3)
    return [Frame(stamp_ns=1 + i, rgb=random.integers(0, 256, (60, 84, 3), dtype=np.uint8)) for i in range(3)]


def context_of(model, frames, epoch=0):
    return model.prepare(frames, epoch=epoch, should_yield=lambda: False)


def answered(model, frames, question=QUESTION, **options):
    return model.generate(question, context_of(model, frames), should_stop=lambda: False, **options)


def test_frames_are_prepared_at_the_sizes_that_the_checkpoint_was_trained_with(loaded, frames):
    small = replace(loaded, budget=PixelBudget(min_px=28 * 28, max_px=56 * 84, pil_resize=True))
    generation = answered(FusedAnswerModel(small, max_new_tokens=3), frames)
    prepared = prepare_video([frame.rgb for frame in frames], small.budget)
    assert (prepared.height_px, prepared.width_px) == (56, 84)
    inputs = build_inputs(loaded.tokenizer, prepared, generation.prompt)
    with torch.inference_mode():
        embeds = loaded.model.visual_embeddings(prepared)
        ids = loaded.model.generate(**inputs.for_generate(), visual_embeds=embeds, do_sample=False, max_new_tokens=3)
    assert loaded.tokenizer.decode(ids[0, inputs.prompt_length :]).strip() == generation.text


def test_the_text_is_the_greedy_one_and_its_confidence_that_of_its_tokens(loaded, frames):
    generation = answered(FusedAnswerModel(loaded, max_new_tokens=5), frames)
    prepared = prepare_video([frame.rgb for frame in frames], TRAINING_BUDGET)
    inputs = build_inputs(loaded.tokenizer, prepared, generation.prompt)
    visual_embeds = loaded.model.visual_embeddings(prepared)
    tokens, log_probability = inputs.input_ids, 0.0
    for _ in range(5):  # without a cache, one whole pass per token
        with torch.inference_mode():
            logits = loaded.model(input_ids=tokens, video_grid_thw=inputs.grid_thw, visual_embeds=visual_embeds).logits[
                0, -1
            ]
        log_probability += float(logits.log_softmax(-1).max())
        tokens = torch.cat([tokens, logits.argmax().view(1, 1)], dim=1)
    expected = loaded.tokenizer.decode(tokens[0, inputs.prompt_length :], skip_special_tokens=True).strip()
    assert generation.text == expected
    assert generation.confidence == pytest.approx(np.exp(log_probability / 5), rel=1e-4)
    assert generation.finished
    assert generation.cut
    assert generation.first_token_ns > 0


def test_it_stops_at_the_token_after_which_it_is_asked_to_and_shows_the_text_until_there(loaded, frames):
    shown = []
    model = FusedAnswerModel(loaded, max_new_tokens=50)
    context = context_of(model, frames)
    generation = model.generate(QUESTION, context, should_stop=lambda: len(shown) >= 3, on_text=shown.append)
    assert not generation.finished
    assert len(shown) == 3
    assert generation.text == shown[-1]


def test_asked_to_yield_before_it_begins_it_does_no_visual_work(loaded, frames, monkeypatch):
    monkeypatch.setattr(PrefixBuild, "_encode_frames", lambda *_: pytest.fail("frames were encoded"))
    model = FusedAnswerModel(loaded, max_new_tokens=5)
    assert model.prepare(frames, epoch=0, should_yield=lambda: True) is None


def test_asked_to_stop_before_it_begins_it_says_nothing(loaded, frames):
    model = FusedAnswerModel(loaded, max_new_tokens=5)
    generation = model.generate(QUESTION, context_of(model, frames), should_stop=lambda: True)
    assert (generation.text, generation.finished, generation.first_token_ns) == ("", False, 0)


def test_the_plain_question_is_asked_in_the_wording_of_the_training_data(loaded, frames):
    generation = answered(FusedAnswerModel(loaded, max_new_tokens=1), frames)
    assert generation.prompt.startswith("Measuring from the closest point of each object")
    assert generation.prompt.endswith("Please answer the question using a single word or phrase.")
