import pytest
import torch
from transformers import DynamicCache, LogitsProcessor

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.preparation import prepare_image, prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import build_inputs, question_ids

NEW = 6


@pytest.fixture
def model(loaded):
    return loaded.model


@pytest.fixture
def video(frames, small_budget):
    return prepare_video(frames, small_budget)


@pytest.fixture
def inputs(loaded, video):
    """Pixels and all, as forward takes them."""
    return {
        **build_inputs(loaded.tokenizer, video, "How many chairs?").for_generate(),
        "pixel_values_videos": video.pixel_values_videos,
        "spatial_videos": [video.spatial_images],
    }


def without_pixels(inputs):
    return {key: value for key, value in inputs.items() if key not in ("pixel_values_videos", "spatial_videos")}


def left_padded(*prompts):
    """Prompts [1, L] of different length as one batch."""
    length = max(prompt.shape[1] for prompt in prompts)
    ids, mask = torch.zeros(len(prompts), length, dtype=torch.long), torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, length - prompt.shape[1] :] = prompt[0]
        mask[row, length - prompt.shape[1] :] = 1
    return ids, mask


@torch.inference_mode()
def greedy(model, inputs, **options):
    return model.generate(**inputs, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW, **options)


@torch.inference_mode()
def test_generating_with_the_cache_equals_whole_passes_without_it(model, inputs):
    generated = greedy(model, inputs)
    ids = inputs["input_ids"]
    for _ in range(NEW):
        step = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = model(**step, use_cache=False).logits[:, -1]
        logits[:, model.generation_config.eos_token_id] = -torch.inf
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert generated.tolist() == ids.tolist()
    assert greedy(model, inputs, use_cache=False).tolist() == ids.tolist()


@torch.inference_mode()
def test_continuing_a_cache_by_hand_equals_the_whole_pass(model, inputs):
    whole = model(**inputs).logits[:, -3:]
    cut = inputs["input_ids"].shape[1] - 3
    begin = {**inputs, "input_ids": inputs["input_ids"][:, :cut], "attention_mask": inputs["attention_mask"][:, :cut]}
    cache = model(**begin, use_cache=True).past_key_values
    rest = model(input_ids=inputs["input_ids"][:, cut:], attention_mask=inputs["attention_mask"], past_key_values=cache)
    assert torch.allclose(rest.logits, whole, atol=1e-4)


@torch.inference_mode()
def test_embeddings_made_beforehand_give_the_same_as_pixels(model, inputs, video):
    embeds = model.visual_embeddings(video)
    assert embeds.shape == (video.token_count, model.config.text_config.hidden_size)
    given = {**without_pixels(inputs), "visual_embeds": embeds}
    assert torch.equal(model(**given).logits, model(**inputs).logits)
    assert greedy(model, given).tolist() == greedy(model, inputs).tolist()


@torch.inference_mode()
def test_a_warm_cache_of_the_video_answers_as_a_cold_one(model, loaded, inputs, video):
    """One cached context, several questions, in any order."""
    cut = inputs["input_ids"].shape[1] - len(question_ids(loaded.tokenizer, "How many chairs?"))
    begin = {**inputs, "input_ids": inputs["input_ids"][:, :cut], "attention_mask": inputs["attention_mask"][:, :cut]}
    for question in ("How many chairs?", "Where is the lamp?", "How many chairs?"):
        prompt = build_inputs(loaded.tokenizer, video, question).for_generate()
        cold = greedy(model, {**prompt, "visual_embeds": model.visual_embeddings(video)})
        warm = model(**begin, past_key_values=DynamicCache(config=model.config), use_cache=True).past_key_values
        model.model.rope_deltas = None  # nothing may depend on which prompt came last
        assert greedy(model, {**prompt, "past_key_values": warm}).tolist() == cold.tolist()


@torch.inference_mode()
def test_a_left_padded_batch_answers_like_its_rows_alone(model, loaded, frames, small_budget):
    videos = [prepare_video(frames, small_budget), prepare_video([frame[:, :30] for frame in frames[:2]], small_budget)]
    questions = ("How many chairs are there in this room?", "Why?")
    prompts = [build_inputs(loaded.tokenizer, *pair) for pair in zip(videos, questions, strict=True)]
    ids, mask = left_padded(*(prompt.input_ids for prompt in prompts))
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "video_grid_thw": torch.cat([video.video_grid_thw for video in videos]),
        "pixel_values_videos": torch.cat([video.pixel_values_videos for video in videos]),
        "spatial_videos": [video.spatial_images for video in videos],
    }
    together = greedy(model, batch)[:, ids.shape[1] :]
    for row, (video, prompt) in enumerate(zip(videos, prompts, strict=True)):
        alone = greedy(model, {**prompt.for_generate(), "visual_embeds": model.visual_embeddings(video)})
        assert together[row].tolist() == alone[0, prompt.prompt_length :].tolist()


@torch.inference_mode()
def test_several_answers_per_prompt_see_the_video_of_their_own_prompt(model, loaded, inputs, frames, small_budget):
    other = prepare_video(frames[:2], small_budget)
    prompt = build_inputs(loaded.tokenizer, other, "Why?")
    ids, mask = left_padded(inputs["input_ids"], prompt.input_ids)
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "video_grid_thw": torch.cat([inputs["video_grid_thw"], other.video_grid_thw]),
        "pixel_values_videos": torch.cat([inputs["pixel_values_videos"], other.pixel_values_videos]),
        "spatial_videos": [*inputs["spatial_videos"], other.spatial_images],
    }
    one = greedy(model, batch)
    beams = greedy(model, batch, num_beams=2, num_return_sequences=1)
    assert beams.shape == one.shape
    torch.manual_seed(0)
    several = model.generate(
        **batch, do_sample=True, top_k=1, num_return_sequences=3, max_new_tokens=NEW, min_new_tokens=NEW
    )
    assert several.tolist() == one.repeat_interleave(3, dim=0).tolist()


@torch.inference_mode()
def test_images_and_videos_share_a_prompt(model, loaded, frames, small_budget, video):
    image = prepare_image(frames[1], small_budget)
    first = build_inputs(loaded.tokenizer, image, "and then").input_ids
    second = build_inputs(loaded.tokenizer, video, "?").input_ids
    ids = torch.cat([first, second], dim=1)
    both = {
        "input_ids": ids,
        "pixel_values": image.pixel_values,
        "image_grid_thw": image.image_grid_thw,
        "spatial_images": [image.spatial_images],
        "pixel_values_videos": video.pixel_values_videos,
        "video_grid_thw": video.video_grid_thw,
        "spatial_videos": [video.spatial_images],
    }
    embeds = model.model.embed(**both)
    for token, prepared in ((model.config.image_token_id, image), (model.config.video_token_id, video)):
        assert torch.equal(embeds[ids == token], model.visual_embeddings(prepared))
    greedy(model, both)


class Force(LogitsProcessor):
    """Makes the model say one token, whatever it thinks."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.token] = 0
        return forced


def test_a_generated_placeholder_token_is_a_token_like_any_other(model, inputs):
    generated = greedy(model, inputs, logits_processor=[Force(model.config.video_token_id)])
    assert generated[0, -NEW:].tolist() == [model.config.video_token_id] * NEW


@torch.inference_mode()
def test_text_alone_is_answered(model, loaded):
    ids = torch.tensor([question_ids(loaded.tokenizer, "Hello?")])
    assert greedy(model, {"input_ids": ids}).shape[1] == ids.shape[1] + NEW


def test_the_loss_reaches_connector_and_language_model(model, inputs):
    connector = model.model.connector.mlp[0].weight.requires_grad_()
    try:
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        assert connector.grad.abs().sum() > 0
    finally:
        connector.requires_grad_(False).grad = None


@torch.inference_mode()
def test_only_the_last_logits_are_kept_on_demand(model, inputs):
    assert torch.allclose(model(**inputs, logits_to_keep=2).logits, model(**inputs).logits[:, -2:], atol=1e-5)


@torch.inference_mode()
def test_frame_order_matters(model, video, frames, small_budget):
    backwards = prepare_video(frames[::-1], small_budget)
    assert not torch.allclose(model.visual_embeddings(video), model.visual_embeddings(backwards).flip(0), atol=1e-3)


def test_inputs_that_do_not_fit_each_other_are_refused(model, inputs, video):
    wrong = {
        "Give either visual_embeds or pixels": {**inputs, "visual_embeds": torch.zeros(12, 64)},
        "visual_embeds has 11 rows for 12": {**without_pixels(inputs), "visual_embeds": torch.zeros(11, 64)},
        "without its grid": {key: value for key, value in inputs.items() if key != "spatial_videos"},
        "make 12 visual tokens but the prompt holds 11": {**inputs, "input_ids": _one_placeholder_less(model, inputs)},
        "Spatial input 0 has shape": {**inputs, "spatial_videos": [video.spatial_images[:2]]},
        "2 spatial inputs came with 1 grids": {**inputs, "spatial_videos": [video.spatial_images] * 2},
        "neither input_ids nor inputs_embeds": {},
        "with input_ids, not with inputs_embeds": {
            "inputs_embeds": torch.zeros(1, 12, 64),
            "visual_embeds": torch.zeros(12, 64),
        },
        "pass position_ids": {"inputs_embeds": torch.zeros(1, 3, 64)},
    }
    for message, arguments in wrong.items():
        with pytest.raises(ConfigurationError, match=message), torch.inference_mode():
            model(**arguments)


def _one_placeholder_less(model, inputs):
    ids = inputs["input_ids"].clone()
    ids[0, (ids[0] == model.config.video_token_id).nonzero()[0]] = 1
    return ids


def test_generating_from_part_of_the_prompt_is_refused(model, inputs):
    with pytest.raises(ConfigurationError, match="whole prompt"):
        greedy(model, {"input_ids": inputs["input_ids"][:, -2:], "attention_mask": inputs["attention_mask"]})


@torch.inference_mode()
def test_a_cache_of_an_unknown_prompt_is_refused(model, inputs):
    cache = model(**inputs, use_cache=True).past_key_values
    model.model.rope_deltas = None
    with pytest.raises(ConfigurationError, match="not known here"):
        model(input_ids=inputs["input_ids"][:, -1:], past_key_values=cache)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.inference_mode()
def test_a_gpu_gives_what_the_cpu_gives(checkpoint_folder, model, inputs):
    from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm

    on_gpu = load_spatial_mllm(checkpoint_folder, device="cuda").model
    moved = {
        key: [part.cuda() for part in value] if isinstance(value, list) else value.cuda()
        for key, value in inputs.items()
    }
    assert torch.allclose(on_gpu(**moved).logits.cpu(), model(**inputs).logits, atol=1e-2)
