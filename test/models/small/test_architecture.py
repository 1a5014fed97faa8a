from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_ros.errors import CheckpointError, ConfigurationError
from spatial_mllm_ros.models.checkpoints.config import pixel_budget
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm, save_spatial_mllm
from spatial_mllm_ros.models.small.architecture import architecture_config, folder_texts, new_model
from spatial_mllm_ros.models.small.sizes import TINY_ROOMS
from spatial_mllm_ros.models.small.tokenizer_training import (
    SMALLEST_VOCABULARY,
    byte_tokenizer,
    spatial_question_corpus,
    train_tokenizer,
)
from spatial_mllm_ros.models.spatial_mllm.preparation import TRAINING_BUDGET, PixelBudget, prepare_video
from spatial_mllm_ros.models.vggt import VggtOutput

QUESTION = "What is the distance between the sofa and the tv (in meters)?"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(spatial_question_corpus())


@pytest.fixture(scope="module")
def config(tokenizer):
    return architecture_config(TINY_ROOMS, tokenizer, licence="apache-2.0")


@pytest.fixture(scope="module")
def model(config):
    return new_model(config, seed=1)


def test_tiny_rooms_fits_the_repository_in_half_precision(config, model, tokenizer, tmp_path):
    assert sum(weight.numel() for weight in model.parameters()) <= 12_000_000
    save_spatial_mllm(
        tmp_path / "tiny", new_model(config, seed=1).half(), config, tokenizer, texts=folder_texts("tiny")
    )
    assert sum(path.stat().st_size for path in (tmp_path / "tiny").iterdir()) <= 25_000_000
    loaded = load_spatial_mllm(tmp_path / "tiny", dtype=torch.float32)
    assert loaded.budget == TINY_ROOMS.budget
    embeddings = loaded.model.get_input_embeddings().weight
    assert torch.allclose(embeddings, model.get_input_embeddings().weight, rtol=1e-3, atol=1e-4)


def test_fresh_weights_depend_on_the_seed_alone(config, model):
    torch.manual_seed(99)
    same, other = new_model(config, seed=1).state_dict(), new_model(config, seed=2).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in model.state_dict().items())
    assert not torch.equal(other["model.connector.mlp.0.weight"], same["model.connector.mlp.0.weight"])


@torch.inference_mode()
def test_fresh_weights_give_usable_values_and_a_gradient_for_every_camera_number(model):
    frames = [np.random.default_rng(i).integers(0, 256, (84, 112, 3), dtype=np.uint8) for i in range(2)]
    images = prepare_video(frames, TINY_ROOMS.budget).spatial_images[None]
    assert images.shape[-2:] == (84, 112)
    seen = model.spatial_encoder(images, tuple(VggtOutput))
    assert ((seen.pose_encoding[..., 7:] > 0.2) & (seen.pose_encoding[..., 7:] < 2)).all()
    assert ((seen.depth > 0.1) & (seen.depth < 10)).all()
    assert 0.1 < seen.last_layer.std() < 10


@torch.no_grad()
def test_attention_begins_by_looking_for_what_is_alike_and_words_are_not_drowned(model):
    def likeness(query, key):
        return float(torch.corrcoef(torch.stack((query.flatten(), key.flatten())))[0, 1])

    text, vggt, vision = model.model.language_model, model.spatial_encoder, model.model.visual
    fused = [vggt.aggregator.global_blocks[1].attn.qkv, vision.blocks[2].attn.qkv]
    for query, key, value in (module.weight.chunk(3) for module in fused):
        assert likeness(query, key) == pytest.approx(0.8, abs=0.02)
        assert abs(likeness(query, value)) < 0.05
    attention = text.layers[3].self_attn
    query, key = (module.weight.unflatten(0, (-1, 64)) for module in (attention.q_proj, attention.k_proj))
    assert (len(query), len(key)) == (4, 2)
    alike = [[round(likeness(q, k), 1) for k in key] for q in query]
    assert alike == [[0.8, 0], [0.8, 0], [0, 0.8], [0, 0.8]]  # a query head with the keys that it meets
    words = text.embed_tokens.weight[:40]
    with torch.inference_mode():
        inputs = words[None]
        places = torch.arange(40)[None]
        layer = text.layers[0](inputs, position_embeddings=text.rotary_emb(inputs, places.expand(3, 1, -1)))
    states = layer[0] if isinstance(layer, tuple) else layer
    assert torch.cosine_similarity(states.view(40, -1), words, dim=-1).median() > 0.7


def test_the_trained_tokenizer_is_short_on_questions_exact_on_anything_and_reproducible(tokenizer):
    assert len(tokenizer.encode_text(QUESTION)) < len(byte_tokenizer().encode_text(QUESTION)) / 2
    for text in (QUESTION, "größer als 3.75 м² 🙂\n\t<|im_end|>", "12345"):
        assert tokenizer.decode(tokenizer.encode_text(text)) == text
    assert len(tokenizer.encode_text("12345")) == 5
    assert train_tokenizer(spatial_question_corpus()).to_json() == tokenizer.to_json()


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(ConfigurationError, match=f"at least {SMALLEST_VOCABULARY}"):
        train_tokenizer(["chair"], vocabulary=200)


def test_published_folders_keep_the_training_budget_and_a_section_changes_it(config):
    assert pixel_budget({}) is TRAINING_BUDGET
    assert pixel_budget(config) == PixelBudget(min_px=9408, max_px=9408, pil_resize=True)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"min_px": 1000, "max_px": 2000}, "expected an object"),
        ({"min_px": "1000", "max_px": 2000, "pil_resize": True}, "whole numbers"),
        ({"min_px": 2000, "max_px": 1000, "pil_resize": True}, "max_px is 1000"),
    ],
)
def test_a_malformed_budget_is_named(section, said):
    with pytest.raises(CheckpointError, match=said):
        pixel_budget({"pixel_budget": section})


@pytest.mark.parametrize("change", [{"heads": 3}, {"kv_heads": 3}, {"vision_full_attention": (4,)}])
def test_sizes_that_cannot_be_are_named(change):
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        replace(TINY_ROOMS, **change)


def test_a_phrase_around_words_that_vary_is_one_token_and_every_text_survives():
    things = ("lamp", "table", "coffee table", "sofa")
    texts = [f"How far is the {a} from the {b}, in meters?" for a in things for b in things] * 4
    tokenizer = train_tokenizer(texts, vocabulary=420, words=things)
    ids = tokenizer.encode_text("How far is the coffee table from the lamp, in meters?")
    pieces = [tokenizer.decode([i]) for i in ids]
    assert pieces == ["How far is the ", "coffee table", " from the ", "lamp", ", in meters?"]
    for odd in ("tables and lampshades, 12.5 m\n", "Größe des Sofas: 3 m²?", "How far is"):
        assert tokenizer.decode(tokenizer.encode_text(odd)) == odd
    assert [tokenizer.decode([i]) for i in tokenizer.encode_text("lamp 20")] == ["lamp", " ", "2", "0"]
