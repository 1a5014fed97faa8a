from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.training.supervision.question_names import Mentions


def test_names_of_things_are_found_among_tokens_and_the_longest_one_counts(start):
    tokenizer = load_spatial_mllm(start).tokenizer
    ids = tokenizer.encode_text("Is the washing machine, a sink or the chair near?")
    found = Mentions(tokenizer).of(ids)
    named = [(LABELS[k], tokenizer.decode(ids[: n + 1])) for n, k in enumerate(found) if k >= 0]
    assert [label for label, _ in named] == ["washing machine", "sink", "chair"]
    assert all(text.endswith(label) for label, text in named)
