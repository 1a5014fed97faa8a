"""The beginning of a prompt, made in steps: the same with and without caches, and wherever it is interrupted."""

import numpy as np
import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.prefill.prefix_build import PrefixBuild
from spatial_mllm_ros.models.prefill.token_cache import TokenCache
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion, connector_for
from spatial_mllm_ros.models.spatial_mllm.preparation import prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import context_ids

MIB = 1 << 20


def never():
    return False


def build_of(loaded, budget, count, cache=None, first=0):
    keys = [("frame of a test", first + index) for index in range(count)]
    return PrefixBuild(loaded.model, loaded.tokenizer, budget, keys, cache if cache is not None else TokenCache(0))


def equal(one, other) -> bool:
    """Bit for bit."""
    return (
        one.token_ids == other.token_ids
        and one.next_position == other.next_position
        and all(
            torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)
            for a, b in zip(one.cache.layers, other.cache.layers, strict=True)
        )
    )


@pytest.fixture
def made(loaded, small_budget, frames):
    return build_of(loaded, small_budget, 4).run(frames, never)


def test_it_is_the_beginning_of_the_prompt_that_the_library_reads_in_one_pass(loaded, small_budget, frames, made):
    video = prepare_video(frames, small_budget)
    ids = torch.tensor([context_ids(loaded.tokenizer, video)])
    with torch.inference_mode():
        embeds = loaded.model.visual_embeddings(video)
        cache = loaded.model(
            input_ids=ids, visual_embeds=embeds, video_grid_thw=video.video_grid_thw, use_cache=True
        ).past_key_values
    assert list(made.token_ids) == ids[0].tolist()
    assert made.grid_thw == tuple(video.video_grid_thw[0].tolist())
    assert made.next_position == ids.shape[1] + int(loaded.model.model.rope_deltas)
    for ours, library in zip(made.cache.layers, cache.layers, strict=True):
        assert torch.allclose(ours.keys, library.keys, atol=1e-4)
        assert torch.allclose(ours.values, library.values, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_tokens_from_the_cache_are_those_that_are_computed_bit_for_bit(loaded, small_budget, frames, count):
    cache = TokenCache(64 * MIB)
    images = frames[:count]
    without = build_of(loaded, small_budget, count).run(images, never)
    first = build_of(loaded, small_budget, count, cache).run(images, never)
    misses = cache.misses
    second = build_of(loaded, small_budget, count, cache).run(images, never)
    assert equal(without, first)
    assert equal(without, second)
    assert cache.misses == misses  # the second one computed no frame and no pair


def test_with_one_frame_exchanged_the_others_come_from_the_cache_and_pairs_that_stay_do(loaded, small_budget, frames):
    cache = TokenCache(64 * MIB)
    build_of(loaded, small_budget, 4, cache).run(frames, never)
    hits, misses = cache.hits, cache.misses
    other = frames[::-1]
    images = [frames[0], frames[1], frames[2], other[1].copy()[::-1]]
    keys = [("frame of a test", name) for name in (0, 1, 2, "new")]
    build = PrefixBuild(loaded.model, loaded.tokenizer, small_budget, keys, cache)
    made = build.run(images, never)
    assert (cache.hits - hits, cache.misses - misses) == (3 + 1, 1 + 1)  # frames and pairs
    assert equal(
        made, PrefixBuild(loaded.model, loaded.tokenizer, small_budget, keys, TokenCache(0)).run(images, never)
    )


def test_qwens_vision_encoder_attends_within_a_pair_only(loaded, small_budget, frames):
    """What makes its tokens per pair exact: the other pairs of the video do not matter."""
    inner = loaded.model.model
    video = prepare_video(frames, small_budget)
    with torch.inference_mode():
        jointly = inner.plain_visual_tokens(video.pixel_values_videos, video.video_grid_thw)
        pairs = [prepare_video(frames[first : first + 2], small_budget) for first in (0, 2)]
        alone = [inner.plain_visual_tokens(pair.pixel_values_videos, pair.video_grid_thw) for pair in pairs]
    # The same sums, in matrix products of other sizes.
    assert torch.allclose(torch.cat(alone), jointly, atol=1e-5)


def test_dinov2_tokens_of_a_frame_do_not_depend_on_the_other_frames(loaded, small_budget, frames):
    aggregator = loaded.model.spatial_encoder.aggregator
    images = prepare_video(frames, small_budget).spatial_images
    with torch.inference_mode():
        jointly = aggregator.embed(images[None])[0]
        alone = torch.cat([aggregator.embed(image[None, None])[0] for image in images])
    assert torch.allclose(alone, jointly, atol=1e-5)


def test_paused_wherever_it_may_be_it_ends_with_the_same(loaded, small_budget, frames, made):
    build = build_of(loaded, small_budget, 4)
    prefix, calls = None, 0
    while prefix is None:
        prefix = build.run(frames, never, pause_requested=lambda: True)
        calls += 1
        assert calls < 100
    depth = loaded.model.spatial_encoder.config.depth
    assert calls >= 2 + depth + 2  # pairs, layers of the aggregator, pairs in the connector
    assert equal(prefix, made)


@pytest.mark.parametrize("asked_before", range(1, 27))
def test_left_before_any_layer_it_goes_on_and_ends_with_the_same(loaded, small_budget, frames, made, asked_before):
    build = build_of(loaded, small_budget, 4)
    asked = iter(range(10_000))
    assert build.run(frames, lambda: next(asked) >= asked_before) is None
    assert next(asked) == asked_before + 1  # it did not go on after it had been told to stop
    assert equal(build.run(frames, never), made)


@pytest.mark.parametrize("fusion", list(Fusion))
def test_a_connector_merges_pairs_that_do_not_see_each_other(fusion):
    torch.manual_seed(3)
    connector = connector_for(fusion, spatial_dim=6, language_dim=10).eval()
    patch_tokens = torch.randn(6, 4 * 8, 6)  # a grid of 4 rows and 8 columns
    with torch.inference_mode():
        pairs = [connector(patch_tokens[first : first + 2], (4, 8)) for first in (0, 2, 4)]
        assert torch.allclose(torch.cat(pairs), connector(patch_tokens, (4, 8)), atol=1e-6)


def test_left_between_the_layers_of_the_language_model_it_reads_that_part_again(loaded, small_budget, frames, made):
    build = build_of(loaded, small_budget, 4)
    layers = loaded.model.model.language_model.layers
    reached = []
    handle = layers[1].register_forward_pre_hook(lambda *_: reached.append(1))
    try:
        assert build.run(frames, lambda: bool(reached)) is None
    finally:
        handle.remove()
    assert equal(build.run(frames, never), made)


def test_a_prefix_read_in_parts_is_the_same_within_rounding(loaded, small_budget, frames, made, monkeypatch):
    monkeypatch.setattr("spatial_mllm_ros.models.prefill.prefill._PREFILL_TOKENS", 7)
    parts = build_of(loaded, small_budget, 4).run(frames, never)
    for one, other in zip(parts.cache.layers, made.cache.layers, strict=True):
        assert torch.allclose(one.keys, other.keys, atol=1e-4)


def test_nothing_is_left_hooked_to_the_model(loaded, small_budget, frames):
    build = build_of(loaded, small_budget, 4)
    build.run(frames, lambda: True)
    build.run(frames, never)
    assert not any(block._forward_pre_hooks for block in loaded.model.blocks)


def test_the_stages_one_by_one_give_the_same(loaded, small_budget, frames, made):
    build = build_of(loaded, small_budget, 4)
    with torch.inference_mode():
        names = [stage() or name for name, stage in build.stages(frames)]
    assert names == ["frames", "trunk", "connector", "prefill"]
    assert equal(build.run(frames, never), made)


def test_its_visual_tokens_are_those_of_a_whole_video_with_what_the_connector_adds_apart(loaded, small_budget, frames):
    video = prepare_video(frames, small_budget)
    tokens = build_of(loaded, small_budget, 4).visual_tokens(frames)
    with torch.inference_mode():
        added = loaded.model.model.spatial_tokens(video.spatial_images, tokens.grid_thw[1:])
        assert torch.allclose(tokens.fused, loaded.model.visual_embeddings(video), atol=1e-5)
    assert torch.allclose(tokens.added, added, atol=1e-5)
    assert tokens.added.abs().max() > 1e-3
    assert tokens.grid_thw == tuple(video.video_grid_thw[0].tolist())


def test_an_engine_in_the_place_of_the_encoder_sees_all_frames_at_once(loaded, small_budget, frames, made):
    encoder = loaded.model.spatial_encoder
    seen = []

    def engine(images):
        seen.append(tuple(images.shape))
        last = encoder.config.depth - 1
        return encoder.aggregator(images, (last,))[last]

    loaded.model.take_last_layer_from(engine)
    try:
        prefix = build_of(loaded, small_budget, 3).run(frames[:3], never)
    finally:
        loaded.model.take_last_layer_from(None)
    assert seen == [(1, 4, 3, 56, 84)]
    own = build_of(loaded, small_budget, 3).run(frames[:3], never)
    assert torch.allclose(prefix.cache.layers[-1].values, own.cache.layers[-1].values, atol=1e-4)


def test_numbers_that_are_not_finite_are_refused(loaded, small_budget, frames):
    config = loaded.model.spatial_encoder.config
    tokens = config.patch_start + (56 // 14) * (84 // 14)
    loaded.model.take_last_layer_from(lambda images: torch.full((1, 4, tokens, 2 * config.embed_dim), torch.nan))
    try:
        with pytest.raises(EngineError, match="not finite"):
            build_of(loaded, small_budget, 4).run(frames, never)
    finally:
        loaded.model.take_last_layer_from(None)


def test_frames_that_do_not_fit_are_refused(loaded, small_budget, frames):
    with pytest.raises(ConfigurationError, match="without a frame"):
        build_of(loaded, small_budget, 0)
    with pytest.raises(ConfigurationError, match="3 images"):
        build_of(loaded, small_budget, 4).run(frames[:3], never)
    with pytest.raises(ConfigurationError, match="all of one size"):
        build_of(loaded, small_budget, 2).run([frames[0], np.ascontiguousarray(frames[1][:30])], never)
