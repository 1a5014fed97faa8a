import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.prefill.token_cache import TokenCache

KIB = torch.zeros(256)  # float32: 1024 bytes


def test_what_was_used_longest_ago_goes_first():
    cache = TokenCache(3 * KIB.nbytes)
    for key in "abc":
        cache.put(key, KIB.clone())
    assert cache.get("a") is not None
    cache.put("d", KIB.clone())
    assert cache.get("b") is None
    assert all(cache.get(key) is not None for key in "acd")
    assert (len(cache), cache.nbytes) == (3, 3 * KIB.nbytes)


def test_one_large_tensor_takes_the_place_of_several():
    cache = TokenCache(3 * KIB.nbytes)
    for key in "abc":
        cache.put(key, KIB.clone())
    cache.put("large", torch.zeros(512))
    assert [key for key in ("a", "b", "c", "large") if cache.get(key) is not None] == ["c", "large"]
    assert cache.nbytes <= 3 * KIB.nbytes


def test_a_tensor_beyond_the_bound_is_not_kept_and_costs_nobody_its_place():
    cache = TokenCache(2 * KIB.nbytes)
    cache.put("a", KIB)
    cache.put("too large", torch.zeros(1000))
    assert cache.get("too large") is None
    assert cache.get("a") is KIB


def test_a_key_put_again_is_counted_once():
    cache = TokenCache(4 * KIB.nbytes)
    for _ in range(3):
        cache.put("a", KIB.clone())
    assert (len(cache), cache.nbytes) == (1, KIB.nbytes)


def test_hits_and_misses_are_counted_and_clear_lets_all_go():
    cache = TokenCache(4 * KIB.nbytes)
    cache.put("a", KIB)
    cache.get("a")
    cache.get("b")
    assert (cache.hits, cache.misses) == (1, 1)
    cache.clear()
    assert (len(cache), cache.nbytes, cache.get("a")) == (0, 0, None)


def test_a_bound_of_zero_keeps_nothing_and_a_negative_one_is_refused():
    cache = TokenCache(0)
    cache.put("a", KIB)
    assert len(cache) == 0
    with pytest.raises(ConfigurationError, match="-1 bytes"):
        TokenCache(-1)
