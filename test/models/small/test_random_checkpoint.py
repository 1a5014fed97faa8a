import pytest
import torch

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.small.random_checkpoint import write_random_checkpoint
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.preparation import TRAINING_BUDGET, prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import build_inputs, user_text
from spatial_mllm_ros.models.vggt import VggtOutput


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(checkpoint_folder, tmp_path):
    write_random_checkpoint(tmp_path / "again")
    write_random_checkpoint(tmp_path / "other", seed=1)
    assert content(tmp_path / "again") == content(checkpoint_folder)
    assert content(tmp_path / "other")["model.safetensors"] != content(checkpoint_folder)["model.safetensors"]


def test_it_is_small_and_says_what_it_is(checkpoint_folder, loaded):
    assert sum(len(data) for data in content(checkpoint_folder).values()) < 8_000_000
    assert loaded.identity.random_weights
    assert loaded.identity.licence == "apache-2.0"
    assert loaded.identity.architecture == "Spatial-MLLM v1.1"
    assert loaded.fusion is Fusion.V1_1


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(CheckpointError, match="exists already"):
        write_random_checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


@torch.inference_mode()
def test_its_text_is_plain_letters_and_depends_on_the_question(loaded, frames, small_budget):
    video = prepare_video(frames, small_budget)
    texts = set()
    for question in ("How many chairs are here?", "How far is the sofa from the door?"):
        inputs = build_inputs(loaded.tokenizer, video, user_text(question, (), loaded.fusion))
        generated = loaded.model.generate(
            **inputs.for_generate(), visual_embeds=loaded.model.visual_embeddings(video), max_new_tokens=24
        )
        text = loaded.tokenizer.decode(generated[0, inputs.prompt_length :])
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ")
        assert len(text) == 24
        texts.add(text)
    assert len(texts) == 2


@torch.inference_mode()
def test_its_geometry_is_finite_with_a_usable_field_of_view(loaded, frames, small_budget):
    images = prepare_video(frames, small_budget).spatial_images[None]
    seen = loaded.model.spatial_encoder(images, tuple(VggtOutput))
    for values in (seen.pose_encoding, seen.depth, seen.depth_confidence, seen.points_world, seen.points_confidence):
        assert values.isfinite().all()
    assert (seen.depth > 0).all()
    assert ((seen.pose_encoding[..., 7:] > 0.3) & (seen.pose_encoding[..., 7:] < 2)).all()


def test_the_prompt_of_sixteen_frames_fits_the_positions_of_the_model(loaded):
    height, width = TRAINING_BUDGET.size_px(480, 640)
    assert 8 * (height // 28) * (width // 28) < loaded.model.config.text_config.max_position_embeddings
