import numpy as np

from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.records import EvidenceSet, Selection


def evidence_of(heights, gains):
    frames = tuple(Frame(i + 1, np.zeros((height, 6, 3), np.uint8)) for i, height in enumerate(heights))
    return EvidenceSet(Selection(0, tuple(f.stamp_ns for f in frames), gains), frames, gains)


def test_frames_of_another_size_than_the_newest_are_left_out_and_counted():
    evidence = evidence_of([4, 5, 4, 5], (9, 8, 7, 6)).of_one_size()
    assert (evidence.stamps_ns, evidence.gains, evidence.other_sizes) == ((2, 4), (8, 6), 2)
    assert evidence.selection.stamps_ns == (1, 2, 3, 4)


def test_a_thinned_set_keeps_the_frames_that_show_most_and_counts_the_others():
    evidence = evidence_of([4] * 5, (1, 9, 3, 0, 8)).thinned(3).thinned(2)
    assert (evidence.stamps_ns, evidence.gains, evidence.left_out) == ((2, 5), (9, 8), 3)


def test_nothing_has_one_size():
    assert EvidenceSet(Selection(0)).of_one_size().frames == ()
