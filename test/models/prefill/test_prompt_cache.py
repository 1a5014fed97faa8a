import pytest
import torch

from spatial_mllm_ros.models.prefill.prompt_cache import PromptCache

HEADS, DIM = 2, 3


def states(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, HEADS, tokens, DIM, generator=generator) for _ in range(2))


def filled(room: int = 4) -> tuple[PromptCache, list[tuple[torch.Tensor, torch.Tensor]]]:
    cache = PromptCache(layers=2, tokens=5, room=room)
    begin = [states(5, seed) for seed in (1, 2)]
    for layer, (keys, values) in enumerate(begin):
        cache.update(keys, values, layer)
    cache.seal()
    return cache, begin


def holds_the_beginning(cache, begin) -> bool:
    return all(
        torch.equal(layer.keys, keys) and torch.equal(layer.values, values)
        for layer, (keys, values) in zip(cache.layers, begin, strict=True)
    )


@pytest.mark.parametrize("appended", [1, 4, 5, 30], ids=lambda n: f"{n} tokens")
def test_it_gives_what_concatenation_gives_also_beyond_its_room(appended):
    cache, begin = filled()
    for layer, (keys, values) in enumerate(begin):
        more_keys, more_values = states(appended, 7 + layer)
        all_keys, all_values = cache.update(more_keys, more_values, layer)
        assert torch.equal(all_keys, torch.cat([keys, more_keys], dim=-2))
        assert torch.equal(all_values, torch.cat([values, more_values], dim=-2))
    assert cache.get_seq_length() == 5 + appended


def test_a_token_is_written_and_nothing_copied():
    cache, _ = filled(room=10)
    before = cache.layers[0].keys.data_ptr()
    cache.update(*states(3, 9), 0)
    assert cache.layers[0].keys.data_ptr() == before


def test_after_a_question_only_the_beginning_is_held():
    cache, begin = filled()
    with cache.questions(1, room=0) as asked:
        for layer in range(2):
            asked.update(*states(40, 3), layer)
        assert asked.get_seq_length() == 45
    assert cache.get_seq_length() == 5
    assert holds_the_beginning(cache, begin)


def test_a_question_that_fails_between_two_layers_leaves_nothing_behind():
    cache, begin = filled()

    def fail_after_one_layer():
        with cache.questions(1, room=0):
            cache.update(*states(2, 3), 0)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_after_one_layer()
    assert holds_the_beginning(cache, begin)


def test_several_questions_continue_the_beginning_together_and_leave_it_as_it_was():
    cache, begin = filled()
    more = [tuple(part.repeat(3, 1, 1, 1) for part in states(6, 7 + layer)) for layer in range(2)]
    with cache.questions(3, room=4) as asked:
        for layer, (keys, values) in enumerate(begin):
            all_keys, all_values = asked.update(*more[layer], layer)
            assert torch.equal(all_keys, torch.cat([keys.repeat(3, 1, 1, 1), more[layer][0]], dim=-2))
            assert torch.equal(all_values, torch.cat([values.repeat(3, 1, 1, 1), more[layer][1]], dim=-2))
        assert asked.get_seq_length() == 5 + 6
    assert holds_the_beginning(cache, begin)


def test_its_bytes_are_those_of_its_buffers_room_included():
    cache, _ = filled(room=4)
    assert cache.nbytes == 2 * 2 * HEADS * (5 + 4) * DIM * 4
