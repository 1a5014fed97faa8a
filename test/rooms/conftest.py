import pytest

from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.world.world import make_world

SEEDS = (3, 8, 12)


@pytest.fixture(scope="session")
def worlds():
    """Three worlds; the middle one has several rooms."""
    return [make_world(seed) for seed in SEEDS]


@pytest.fixture(scope="session")
def clips():
    """Eight frames of each of the three worlds."""
    return make_clips(SEEDS, ClipConfig(frames=8, width_px=96, height_px=72))
