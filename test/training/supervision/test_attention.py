import json
import math
from dataclasses import replace

import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError, TrainingError
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.models.small.architecture import write_new_checkpoint
from spatial_mllm_ros.models.small.tokenizer_training import spatial_question_corpus, train_tokenizer
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.training.config import RunConfig
from spatial_mllm_ros.training.sft.batch import build_batch
from spatial_mllm_ros.training.sft.config import PartRates, SftConfig, SftDataConfig, SftModelConfig
from spatial_mllm_ros.training.sft.model import SftObjective
from spatial_mllm_ros.training.sft.rooms import RoomRows
from spatial_mllm_ros.training.sft.run import run_sft
from spatial_mllm_ros.training.supervision.attention import (
    ASKED,
    ASKED_LABEL,
    BEFORE,
    FIRST,
    LABEL,
    NOWHERE,
    TOKEN,
    AttentionSupervision,
    Look,
    Pointers,
    looks,
    pointers_of,
)
from spatial_mllm_ros.training.supervision.question_names import QuestionNames
from spatial_mllm_ros.training.supervision.tokens import TokenTargets

GRID = (2, 4)  # patches; a frame pair has two tokens, left and right
LEFT, RIGHT = 0, 3  # a patch of the upper row in the left and in the right token


@pytest.fixture(scope="module")
def deep(smallest, tmp_path_factory):
    """As deep and with as many heads as supervision need."""
    folder = tmp_path_factory.mktemp("deep") / "deep"
    sizes = replace(smallest, layers=5, heads=4, kv_heads=2)
    write_new_checkpoint(folder, sizes, train_tokenizer(spatial_question_corpus()), licence="mit", seed=3)
    return folder


def targets_of(shown):
    """Of (frame, patch, label) that are shown, in six frames."""
    every = torch.zeros(6, GRID[0] * GRID[1], len(LABELS), dtype=torch.bool)
    for frame, patch, label in shown:
        every[frame, patch, label] = True
    unknown = torch.full((6, GRID[0] * GRID[1], 3), math.nan)
    return TokenTargets(GRID, every, unknown, unknown)


def test_options_point_back_to_what_is_asked_about_and_the_answer_to_the_right_one():
    # "which of these (5, 7) is closest to the 3?", "A. 5", "B. 7", right is B; the answer begins after token 9.
    found = pointers_of(QuestionNames.of([5, 7, -1, 3, -1, -1, 5, -1, 7, -1], in_sentence=3, options=2, right=1))
    assert found.names[:, TOKEN].tolist() == [0, 1, 3, 6, 8]
    assert found.names[:, LABEL].tolist() == [5, 7, 3, 5, 7]
    assert found.names[:, ASKED].tolist() == [NOWHERE] * 3 + [3, 3]
    assert found.names[:, ASKED_LABEL].tolist() == [NOWHERE] * 3 + [3, 3]
    assert found.names[:, BEFORE].tolist() == [NOWHERE, 0, 1, 3, 6]
    assert found.names[:, FIRST].tolist() == [NOWHERE, 0, 0, NOWHERE, 0]  # a name does not point to its like
    assert found.answers.tolist() == [[9, 8]]


def test_without_things_among_the_options_the_answer_follows_from_the_third_name_or_the_last():
    # "standing by the 3, facing the 5, is the 7 left or right of the 5?", "A. left", "B. right"
    found = pointers_of(QuestionNames.of([3, -1, 5, -1, 7, 5, -1, -1], in_sentence=4, options=2, right=1))
    assert found.names[:, ASKED].tolist() == [NOWHERE, 0, 0, 0]
    assert found.answers.tolist() == [[7, 4]]
    assert pointers_of(QuestionNames.of([3, -1, 5, -1], in_sentence=2)).answers.tolist() == [[3, 2]]
    nothing = pointers_of(QuestionNames.of([-1, -1], in_sentence=0))
    assert len(nothing.names) == len(nothing.answers) == 0


def test_pointers_move_with_their_question_and_nowhere_stays_nowhere():
    moved = pointers_of(QuestionNames.of([3, -1, 5, -1], in_sentence=2)).moved(100)
    assert moved.names.tolist() == [[100, 3, NOWHERE, NOWHERE, NOWHERE, NOWHERE], [102, 5, 100, 3, 100, 100]]
    assert moved.answers.tolist() == [[103, 102]]
    assert Pointers.none().moved(7).names.shape == (0, 6)


def test_a_name_looks_at_its_tokens_at_the_best_view_at_the_first_and_at_the_view_it_shares():
    # 5 is first seen in pair 0 right and best in pair 1; in pair 2 left it is best seen with 3.
    shown_5 = [(0, RIGHT, 5), (2, LEFT, 5), (3, LEFT, 5), (3, RIGHT, 5), (4, LEFT, 5), (5, LEFT, 5)]
    targets = targets_of([*shown_5, (1, LEFT, 3), (4, LEFT, 3), (5, RIGHT, 3)])
    found = looks(pointers_of(QuestionNames.of([3, 5, 9, -1], in_sentence=3)).names, targets)
    three, five, nine = range(3)
    # Tokens: pair 0 left, right, pair 1 left, right, pair 2 left, right.
    assert found[Look.ANY][five].nonzero()[:, 0].tolist() == [1, 2, 3, 4]
    assert found[Look.BEST][five].nonzero()[:, 0].tolist() == [2, 3]
    assert found[Look.FIRST][five].nonzero()[:, 0].tolist() == [1]
    assert found[Look.FIRST][three].nonzero()[:, 0].tolist() == [0]
    assert found[Look.JOINT][five].nonzero()[:, 0].tolist() == [4]
    assert found[Look.JOINT_OTHER][five].nonzero()[:, 0].tolist() == [4, 5]
    for look in Look:
        assert not found[look][nine].any()
    assert not found[Look.JOINT][three].any()  # nothing was named before it


def test_the_loss_is_the_attention_that_goes_astray(deep):
    loaded = load_spatial_mllm(deep)
    source = RoomRows(loaded, SftDataConfig(rooms_frames=(4,), rooms_questions=1, rooms_describe=False), seed=0)
    row = source.rows(5, 1, 0)[0]
    batch = build_batch(loaded.tokenizer, [row], loaded.model.model.mrope_rule)
    given = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids,
        "use_cache": False,
    }
    lm = loaded.model.model
    visual = batch.input_ids == loaded.model.config.video_token_id
    with torch.no_grad():
        rows = torch.randn(int(visual.sum()), 32, generator=torch.Generator().manual_seed(2))
        lm.language_model.config._attn_implementation = "eager"
        bias = torch.where(batch.attention_mask, 0.0, torch.finfo(torch.float32).min)
        weights = lm(**{**given, "attention_mask": bias}, visual_embeds=rows, output_attentions=True).attentions
        supervision = AttentionSupervision(lm.language_model, 32)
        lm(**given, visual_embeds=rows)
        found = supervision(batch.names, batch.answers, visual, batch.token_targets, [True])
    names = batch.names[:, 1:]
    wanted = looks(names, row.token_targets)[Look.ANY]
    in_video = visual[0].nonzero()[:, 0]
    shares = [
        float(weights[layer][0, head, token, in_video[seen] if seen.any() else [0]].sum())
        for layer, head in ((0, 0), (1, 3))
        for token, seen in zip(names[:, TOKEN].tolist(), wanted, strict=True)
    ]
    assert 0 < sum(map(bool, wanted.any(1))) < len(names)  # both kinds are among them
    assert float(found["found"]) == pytest.approx(sum(shares) / len(shares), rel=1e-4)
    assert float(found["attention_loss"]) > -sum(map(math.log, shares)) / len(shares)
    blind = supervision(batch.names, batch.answers, visual, batch.token_targets, [False])
    first = (weights[0][0, 0, names[:, TOKEN], 0].mean() + weights[1][0, 3, names[:, TOKEN], 0].mean()) / 2
    assert float(blind["found"]) == pytest.approx(float(first), rel=1e-4)


def test_a_model_without_enough_layers_is_refused(start):
    with pytest.raises(TrainingError, match="5 layers and 4 heads; this one has 2 and 2"):
        SftObjective(load_spatial_mllm(start).model, SftModelConfig(checkpoint=start, attention_supervision=1.0))


def test_attention_that_no_question_needs_is_refused(deep, tmp_path):
    data = SftDataConfig(rooms_questions=0, rooms_describe=False)
    with pytest.raises(ConfigurationError, match="need questions"):
        SftConfig(SftModelConfig(deep, token_supervision=1.0, attention_supervision=0.1), RunConfig(tmp_path), data)


def test_heads_learn_where_to_look_and_the_checkpoint_is_none_the_bigger(deep, tmp_path):
    run_sft(
        SftConfig(
            model=SftModelConfig(checkpoint=deep, trained=("language",), attention_supervision=1.0),
            data=SftDataConfig(rooms_frames=(4,), rooms_questions=1, rooms_describe=False),
            run=RunConfig(out=tmp_path / "run", steps=12, batch_size=1, accumulate=1, device="cpu", seed=1),
            rates=PartRates(connector=1e-2, merger=1e-2, language=1e-2, vision=1e-2, spatial=1e-2),
        )
    )
    steps = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first, last = (sum(step["attention_loss"] for step in part) / 3 for part in (steps[:3], steps[-3:]))
    assert last < 0.8 * first
    before, after = (load_spatial_mllm(folder).model for folder in (deep, tmp_path / "run/checkpoint"))
    assert [name for name, _ in before.named_parameters()] == [name for name, _ in after.named_parameters()]
