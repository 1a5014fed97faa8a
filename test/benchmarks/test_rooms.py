from spatial_mllm_ros.benchmarks.rooms import rooms_rows


def test_the_speed_of_rendering_is_measured_against_its_aims():
    rows = {row.name: row for row in rooms_rows(seconds=0.01, worlds=2)}
    assert rows["rooms: rendering 112x84 (cpu)"].aim == ">= 500"
    assert rows["rooms: rendering 448x336 (cpu)"].aim == ">= 30"
    assert all(row.value > 0 for row in rows.values())
