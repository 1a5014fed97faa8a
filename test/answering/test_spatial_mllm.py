from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_ros.answering.model import ModelOutOfMemoryError
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.spatial_mllm import SpatialMllmAnswerModel
from spatial_mllm_ros.answering.wording import checkpoint_prompt
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.models.prefill.prefix_build import PrefixBuild
from spatial_mllm_ros.models.small.random_checkpoint import write_random_checkpoint
from spatial_mllm_ros.models.spatial_mllm.preparation import TRAINING_BUDGET, PixelBudget, prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import build_inputs, question_ids

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
    return model.prepare(frames, epoch=epoch, interrupt=lambda: False)


def answered(model, frames, question=QUESTION, **options):
    return model.generate(question, context_of(model, frames), should_stop=lambda: False, **options)


def test_frames_are_prepared_at_the_sizes_that_the_checkpoint_was_trained_with(loaded, frames):
    small = replace(loaded, budget=PixelBudget(min_px=28 * 28, max_px=56 * 84, pil_resize=True))
    generation = answered(SpatialMllmAnswerModel(small, max_new_tokens=3), frames)
    prepared = prepare_video([frame.rgb for frame in frames], small.budget)
    assert (prepared.height_px, prepared.width_px) == (56, 84)
    inputs = build_inputs(loaded.tokenizer, prepared, generation.prompt)
    with torch.inference_mode():
        embeds = loaded.model.visual_embeddings(prepared)
        ids = loaded.model.generate(**inputs.for_generate(), visual_embeds=embeds, do_sample=False, max_new_tokens=3)
    assert loaded.tokenizer.decode(ids[0, inputs.prompt_length :]).strip() == generation.text


def test_the_text_is_the_greedy_one_and_its_confidence_that_of_its_tokens(loaded, frames):
    generation = answered(SpatialMllmAnswerModel(loaded, max_new_tokens=5), frames)
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
    assert generation.truncated
    assert generation.first_token_ns > 0


def test_it_stops_at_the_token_after_which_it_is_asked_to_and_shows_the_text_until_there(loaded, frames):
    shown = []
    model = SpatialMllmAnswerModel(loaded, max_new_tokens=50)
    context = context_of(model, frames)
    generation = model.generate(QUESTION, context, should_stop=lambda: len(shown) >= 3, on_text=shown.append)
    assert not generation.finished
    assert len(shown) == 3
    assert generation.text == shown[-1]


def test_interrupted_before_it_begins_it_does_no_visual_work(loaded, frames, monkeypatch):
    monkeypatch.setattr(PrefixBuild, "_encode_frames", lambda *_: pytest.fail("frames were encoded"))
    model = SpatialMllmAnswerModel(loaded, max_new_tokens=5)
    assert model.prepare(frames, epoch=0, interrupt=lambda: True) is None


def test_asked_to_stop_before_it_begins_it_says_nothing(loaded, frames):
    model = SpatialMllmAnswerModel(loaded, max_new_tokens=5)
    generation = model.generate(QUESTION, context_of(model, frames), should_stop=lambda: True)
    assert (generation.text, generation.finished, generation.first_token_ns) == ("", False, 0)


def test_the_plain_question_is_asked_in_the_wording_of_the_training_data(loaded, frames):
    generation = answered(SpatialMllmAnswerModel(loaded, max_new_tokens=1), frames)
    assert generation.prompt.startswith("Measuring from the closest point of each object")
    assert generation.prompt.endswith("Please answer the question using a single word or phrase.")


QUESTIONS = [
    Question("How many chairs are in this room?"),
    Question("Which is nearer?", ("the sofa", "the door", "the lamp")),
    Question("How far is the chair from the door?"),
]


@pytest.fixture
def small(loaded):
    """Frames of 60x84 pixels stay small, so that many questions are quick."""
    return replace(loaded, budget=PixelBudget(min_px=28 * 28, max_px=56 * 84, pil_resize=True))


@pytest.fixture
def walk():
    random = np.random.default_rng(5)
    return [Frame(stamp_ns=1 + i, rgb=random.integers(0, 256, (60, 84, 3), dtype=np.uint8)) for i in range(7)]


def ids_of(model, context, question, **options):
    return model.generate(question, context, should_stop=lambda: False, **options).token_ids


def test_prompts_answered_together_get_the_answers_that_each_gets_alone(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=12)
    context = context_of(model, walk[:4])
    alone = [model.generate(question, context, should_stop=lambda: False) for question in QUESTIONS]
    prompts = [model.prompt_of(question) for question in QUESTIONS]
    assert len({len(question_ids(small.tokenizer, prompt)) for prompt in prompts}) == len(prompts)  # they are padded
    together = model.generate_all(prompts, context)
    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.token_ids, one.prompt) == (other.text, other.token_ids, other.prompt)
        assert (one.finished, one.truncated) == (other.finished, other.truncated)
        assert one.confidence == pytest.approx(other.confidence, rel=1e-4)
    assert model.generate_all(prompts[:1], context)[0].token_ids == alone[0].token_ids
    assert model.generate_all([], context) == []
    assert ids_of(model, context, QUESTIONS[0]) == alone[0].token_ids  # the context is as it was


def test_an_answer_that_ends_early_has_nothing_of_the_longer_ones_beside_it(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=12)
    context = context_of(model, walk[:4])
    prompts = [model.prompt_of(question) for question in QUESTIONS]
    whole = [generation.token_ids for generation in model.generate_all(prompts, context)]
    model._ends = frozenset({whole[0][4]})
    expected = [ids[: ids.index(whole[0][4]) + 1] if whole[0][4] in ids else ids for ids in whole]
    ended = model.generate_all(prompts, context)
    assert [generation.token_ids for generation in ended] == expected
    assert len({len(ids) for ids in expected}) > 1
    assert not ended[0].truncated


def test_a_context_of_the_frames_tokens_answers_as_that_of_the_frames(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=12)
    tokens = model.visual_tokens([frame.rgb for frame in walk[:4]], range(4))
    context = model.context_of(tokens.fused, tokens.grid_thw)
    assert ids_of(model, context, QUESTIONS[0]) == ids_of(model, context_of(model, walk[:4]), QUESTIONS[0])
    zeros = model.context_of(torch.zeros_like(tokens.plain), tokens.grid_thw)
    assert ids_of(model, zeros, QUESTIONS[0]) != ids_of(model, context, QUESTIONS[0])
    with pytest.raises(ConfigurationError, match="placeholder tokens"):
        model.context_of(tokens.fused[1:], tokens.grid_thw)


def test_out_of_memory_halves_the_batch_for_good(small, walk, monkeypatch):
    model = SpatialMllmAnswerModel(small, max_new_tokens=3, batch_size=8)
    context = context_of(model, walk[:2])
    prompts = [model.prompt_of(question) for question in (*QUESTIONS, *QUESTIONS)]
    expected = [generation.token_ids for generation in model.generate_all(prompts, context)]
    rows, read_on = [], small.model.read_on

    def little_memory(embeds, *arguments):
        rows.append(embeds.shape[0])
        if embeds.shape[0] > most:
            raise torch.OutOfMemoryError("no room")
        return read_on(embeds, *arguments)

    monkeypatch.setattr(small.model, "read_on", little_memory)
    most = 2
    assert [generation.token_ids for generation in model.generate_all(prompts, context)] == expected
    assert rows[:3] == [6, 3, 1]
    rows.clear()
    model.generate_all(prompts, context)
    assert max(rows) == 1
    most = 0
    with pytest.raises(ModelOutOfMemoryError, match="no room"):
        model.generate_all(prompts, context)


def one_pass_ids(loaded, frames, question, new_tokens):
    """What the library generates when it reads frames and question in one pass, without anything of ours kept."""
    prepared = prepare_video([frame.rgb for frame in frames], loaded.budget)
    text = checkpoint_prompt(question.text, question.options, loaded.fusion, numeric=question.form.is_number)
    inputs = build_inputs(loaded.tokenizer, prepared, text)
    with torch.inference_mode():
        embeds = loaded.model.visual_embeddings(prepared)
        ids = loaded.model.generate(
            **inputs.for_generate(), visual_embeds=embeds, do_sample=False, max_new_tokens=new_tokens
        )
    return tuple(ids[0, inputs.prompt_length :].tolist())


def test_warm_answers_are_the_cold_ones_token_for_token_in_any_order(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=12)
    context = context_of(model, walk[:4])
    warm = [ids_of(model, context, QUESTIONS[index]) for index in (0, 1, 2, 0, 2, 1, 1)]
    cold = [
        answered(SpatialMllmAnswerModel(small, max_new_tokens=12), walk[:4], question).token_ids
        for question in QUESTIONS
    ]
    assert warm == [cold[index] for index in (0, 1, 2, 0, 2, 1, 1)]
    assert cold == [one_pass_ids(small, walk[:4], question, 12) for question in QUESTIONS]
    assert len(set(cold)) == len(cold)  # the questions matter


def test_a_question_that_was_cancelled_or_failed_leaves_no_trace(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=12)
    context = context_of(model, walk[:4])
    expected = ids_of(model, context, QUESTIONS[0])
    said = []
    stopped = model.generate(QUESTIONS[1], context, should_stop=lambda: len(said) >= 4, on_text=said.append)
    assert not stopped.finished
    assert ids_of(model, context, QUESTIONS[0]) == expected

    def client_is_gone(_text):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        ids_of(model, context, QUESTIONS[2], on_text=client_is_gone)
    fails = small.model.model.language_model.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ids_of(model, context, QUESTIONS[2])
    fails.remove()
    assert ids_of(model, context, QUESTIONS[0]) == expected


def test_after_a_refresh_the_new_frames_answer_and_the_old_context_still_does_as_before(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=12)
    old = context_of(model, walk[:4])
    before = ids_of(model, old, QUESTIONS[0])
    new = context_of(model, [*walk[:2], *walk[4:]])  # two frames come from the cache
    assert new.stamps_ns == (1, 2, 5, 6, 7)
    assert ids_of(model, new, QUESTIONS[0]) == one_pass_ids(small, [*walk[:2], *walk[4:]], QUESTIONS[0], 12)
    assert ids_of(model, old, QUESTIONS[0]) == before != ids_of(model, new, QUESTIONS[0])


def test_a_paused_refresh_continues_whatever_questions_come_in_between(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=6)
    old = context_of(model, walk[:4])
    expected = ids_of(model, old, QUESTIONS[0])
    new = None
    for _ in range(100):
        new = model.prepare(walk[2:6], epoch=0, interrupt=lambda: False, pause_requested=lambda: True)
        assert ids_of(model, old, QUESTIONS[0]) == expected
        if new is not None:
            break
    assert ids_of(model, new, QUESTIONS[1]) == one_pass_ids(small, walk[2:6], QUESTIONS[1], 6)


def test_the_positions_of_another_prompt_do_not_reach_a_warm_question(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=6)
    context = context_of(model, walk[:4])
    expected = ids_of(model, context, QUESTIONS[0])
    one_pass_ids(small, walk[:1], QUESTIONS[1], 2)  # leaves its rope_deltas on the model
    assert ids_of(model, context, QUESTIONS[0]) == expected


def test_equal_stamps_of_another_epoch_are_other_frames(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=6)
    context_of(model, walk[:4])
    renamed = [Frame(stamp_ns=1 + index, rgb=frame.rgb) for index, frame in enumerate(walk[3:7])]
    context = context_of(model, renamed, epoch=1)
    assert ids_of(model, context, QUESTIONS[0]) == one_pass_ids(small, renamed, QUESTIONS[0], 6)


def test_a_question_costs_its_own_tokens_only(small, walk):
    model = SpatialMllmAnswerModel(small, max_new_tokens=3)
    context = context_of(model, walk[:4])
    read = []
    handle = small.model.model.language_model.layers[0].register_forward_pre_hook(
        lambda _module, inputs: read.append(inputs[0].shape[1])
    )
    try:
        generation = model.generate(QUESTIONS[0], context, should_stop=lambda: False)
    finally:
        handle.remove()
    assert read == [len(question_ids(small.tokenizer, generation.prompt)), 1, 1]


def test_an_answer_longer_than_the_room_behind_the_prefix_is_the_same(small, walk, monkeypatch):
    expected = answered(SpatialMllmAnswerModel(small, max_new_tokens=20), walk[:4]).token_ids
    monkeypatch.setattr("spatial_mllm_ros.models.prefill.prefill._ROOM_TOKENS", 5)
    model = SpatialMllmAnswerModel(small, max_new_tokens=20)
    context = context_of(model, walk[:4])
    assert [ids_of(model, context, QUESTION) for _ in range(2)] == [expected] * 2


def test_out_of_memory_lets_go_of_what_was_kept(small, walk, monkeypatch):
    model = SpatialMllmAnswerModel(small, max_new_tokens=2)
    context_of(model, walk[:2])
    assert len(model.tokens) > 0

    def out_of_memory(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(PrefixBuild, "_mix_frames", out_of_memory)
    with pytest.raises(ModelOutOfMemoryError, match="no room"):
        context_of(model, walk[:4])
    assert len(model.tokens) == 0
