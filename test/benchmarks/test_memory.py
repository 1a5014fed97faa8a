from spatial_mllm_ros.benchmarks.memory import room_rows, worlds_of
from spatial_mllm_ros.rooms.world.world import make_world, split_seed
from spatial_mllm_ros.scene.config import SceneConfig


def test_worlds_are_taken_until_they_have_the_rooms_asked_for():
    worlds = worlds_of(4)
    assert sum(count for _, count in worlds) == 4
    assert all(len(make_world(split_seed("test", number)).rooms) == count for number, count in worlds)


def test_a_walk_a_hundred_times_as_long_as_the_ring_is_measured_against_a_memory_that_forgets_nothing():
    config = SceneConfig(ring_frames=1, keyframes=40, rate_hz=0.0, selected_frames=4)
    rows = {row.name: row for row in room_rows(config=config, rooms=2, size_px=(64, 48))}
    assert "100 frames" in rows["stream.2_rooms.frame_p50_ms"].detail
    assert rows["stream.2_rooms.coverage_over_unlimited"].aim == ">= 0.98"
    assert 0.9 < rows["stream.2_rooms.coverage_over_unlimited"].value <= 1.1
    assert 0.5 < rows["stream.2_rooms.held_over_ever"].value <= 1.0
