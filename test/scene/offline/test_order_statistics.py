import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from spatial_mllm_ros.scene.offline import order_statistics
from spatial_mllm_ros.scene.offline.order_statistics import median_of_finite


def median(rows):
    return median_of_finite(rows, lambda function: [function(i) for i in range(len(rows))])


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.one_of(
            st.floats(-(2.0**100), 2.0**100, width=32), st.sampled_from([0.0, 1.0, 1.0, 2.0, np.nan, np.inf, -np.inf])
        ),
    )
)
def test_it_is_the_median_of_the_finite_values(rows):
    value, all_finite = median(rows)
    finite = rows[np.isfinite(rows)]
    with np.errstate(over="ignore"):
        expected = np.median(finite) if len(finite) else 0
    assert value == np.float32(expected)
    assert all_finite == (len(finite) == rows.size)


@pytest.mark.parametrize("size", [200_001, 200_000])
def test_it_is_exact_where_a_sample_is_used(size):
    rows = np.random.default_rng(5).gamma(2, 3, (1, size)).astype(np.float32)
    assert median(rows)[0] == np.median(rows)


def test_it_is_exact_where_the_sample_misleads(monkeypatch):
    monkeypatch.setattr(order_statistics, "_SAMPLE", 4)
    rows = np.tile(np.array([9, 1, 2, 3], np.float32), (1, 50))  # every fourth value, the sampled one, is the largest
    assert median(rows)[0] == np.median(rows)


@pytest.mark.parametrize("ones", [30, 50, 70])
def test_it_is_exact_for_many_equal_values(ones):
    rows = np.repeat(np.array([0, 1], np.float32), [100 - ones, ones]).reshape(4, 25)
    assert median(rows)[0] == np.median(rows)
