import pytest

from spatial_mllm_ros.answering.context import ContextConfig, changed_fraction
from spatial_mllm_ros.errors import ConfigurationError


@pytest.mark.parametrize(
    ("made_of", "wanted", "share"),
    [
        *(((), (), 0), ((1, 2, 3, 4), (1, 2, 3, 4), 0), ((1, 2, 3, 4), (2, 3, 4, 9), 0.25)),
        *(((1,), (1, 2, 3, 4), 0.75), ((1, 2, 3, 4), (1,), 0.75), ((1, 2), (3, 4), 1), ((), (1, 2), 1)),
    ],
)
def test_the_share_that_has_changed_counts_frames_that_came_and_frames_that_went(made_of, wanted, share):
    assert changed_fraction(made_of, wanted) == pytest.approx(share)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("refresh_changed_fraction", 1.5), ("max_changed_fraction", -0.1), ("refresh_interval_s", float("nan"))),
        *(("max_age_s", -1.0), ("cache_bytes", -1)),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigurationError, match=f"ContextConfig.{field} is {value}"):
        ContextConfig(**{field: value})
