from spatial_mllm_ros.answering.deadline_policy import CostEstimate


def test_without_a_measurement_everything_is_tried():
    assert CostEstimate().frames_within(16, 1) == 16


def test_without_a_deadline_everything_is_taken():
    costs = CostEstimate()
    costs.note_context(16, 10**12)
    assert costs.frames_within(16, None) == 16


def test_fewer_frames_are_an_even_number_that_fits_beside_the_text():
    costs = CostEstimate()
    costs.note_context(16, 1600)
    costs.note_text(200)
    assert costs.frames_within(16, 1800) == 16
    assert costs.frames_within(16, 1799) == 14
    assert costs.frames_within(15, 1200) == 10
    assert costs.frames_within(16, 620) == 4


def test_when_nothing_fits_two_are_tried():
    costs = CostEstimate()
    costs.note_context(16, 1600)
    assert costs.frames_within(16, 5) == 2
    assert costs.frames_within(1, 5) == 1


def test_the_slowest_of_the_last_measurements_counts():
    costs = CostEstimate()
    for took_ns in (900, 100, 300, 200, 100):
        costs.note_context(8, took_ns)
    assert costs.context_ns(8) == 300
    for took_ns in (5, 50, 10):
        costs.note_text(took_ns)
    assert costs.text_ns() == 50


def test_it_scales_by_number_downwards_and_by_its_square_upwards():
    costs = CostEstimate()
    costs.note_context(8, 800)
    assert costs.context_ns(4) == 400
    assert costs.context_ns(16) == 3200
    costs.note_context(16, 2000)
    assert costs.context_ns(14) == 1750
