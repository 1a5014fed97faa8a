import numpy as np
import pytest
import torch

from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.models.spatial_mllm.preparation import prepare_image, prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import build_inputs
from spatial_mllm_ros.training.sft.batch import IGNORED, SftRow, build_batch, encode_dialogue
from spatial_mllm_ros.training.sft.model import SftObjective

ASKED = (("How many chairs are here?", "2"), ("Which is closest to the sofa?", "the tall lamp"), ("Room size?", "12.5"))


@pytest.fixture(scope="module")
def loaded(start):
    return load_spatial_mllm(start)


@pytest.fixture(scope="module")
def media(loaded):
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (60, 90, 3), dtype=np.uint8) for _ in range(4)]
    return prepare_video(frames, loaded.budget), prepare_image(frames[1][:, :70], loaded.budget)


def batch_of(loaded, *rows):
    encoded = [
        SftRow(prepared, [encode_dialogue(loaded.tokenizer, turns) for turns in dialogues])
        for prepared, dialogues in rows
    ]
    return build_batch(loaded.tokenizer, encoded, loaded.model.model.mrope_rule)


def loss_of(loaded, batch):
    with torch.no_grad():
        return float(SftObjective(loaded.model)(batch)["loss"])


def test_only_the_answer_and_its_end_are_learned(loaded, media):
    batch = batch_of(loaded, (media[0], [ASKED[1:2]]))
    learned = batch.labels[0] != IGNORED
    assert loaded.tokenizer.decode(batch.labels[0][learned], skip_special_tokens=False) == "the tall lamp<|im_end|>"
    assert torch.equal(batch.labels[0][learned], batch.input_ids[0][learned])
    prompt = build_inputs(loaded.tokenizer, media[0], ASKED[1][0]).input_ids[0]
    assert torch.equal(batch.input_ids[0][: len(prompt)], prompt)  # trained as it will be asked
    assert not learned[: len(prompt)].any()


def test_the_loss_is_that_of_the_library_on_the_same_tokens(loaded, media):
    batch = batch_of(loaded, (media[0], [ASKED[:1]]))
    with torch.no_grad():
        expected = loaded.model(
            input_ids=batch.input_ids,
            labels=batch.labels,
            video_grid_thw=media[0].video_grid_thw,
            visual_embeds=loaded.model.visual_embeddings(media[0]),
        ).loss
    assert loss_of(loaded, batch) / batch.learned_tokens == pytest.approx(float(expected), abs=1e-5)


def test_questions_that_share_a_video_are_learned_as_if_each_were_alone(loaded, media):
    alone = sum(loss_of(loaded, batch_of(loaded, (media[0], [(turn,)]))) for turn in ASKED)
    shared = batch_of(loaded, (media[0], [(turn,) for turn in ASKED]))
    assert shared.attention_mask.ndim == 4
    assert loss_of(loaded, shared) == pytest.approx(alone, abs=2e-4)


def test_rows_of_unequal_length_and_kind_do_not_touch_each_other(loaded, media):
    rows = [(media[0], [ASKED[:2]]), (media[1], [ASKED[2:]])]
    alone = sum(loss_of(loaded, batch_of(loaded, row)) for row in rows)
    assert loss_of(loaded, batch_of(loaded, *rows)) == pytest.approx(alone, abs=2e-4)
    shared = [(media[0], [ASKED[:1], ASKED[1:2]]), (media[1], [ASKED[2:]])]
    alone = sum(loss_of(loaded, batch_of(loaded, row)) for row in shared)
    assert loss_of(loaded, batch_of(loaded, *shared)) == pytest.approx(alone, abs=2e-4)


def test_a_later_turn_sees_the_turns_before_it(loaded, media):
    together = loss_of(loaded, batch_of(loaded, (media[0], [ASKED[:2]])))
    apart = loss_of(loaded, batch_of(loaded, (media[0], [ASKED[:1], ASKED[1:2]])))
    assert abs(together - apart) > 1e-3
