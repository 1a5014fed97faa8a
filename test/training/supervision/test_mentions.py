import math
from collections import Counter

import numpy as np
import pytest
import torch

from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.training.supervision.mentions import MentionHead, ThingTargets, mention_targets, thing_targets
from spatial_mllm_ros.training.supervision.question_names import QuestionNames
from spatial_mllm_ros.training.supervision.tokens import UNIT_M


def test_targets_of_things_agree_with_the_annotation(clip):
    targets, scene = thing_targets(clip.annotation), clip.annotation
    counts = Counter(thing.label for thing in scene.objects)
    best_views = clip.annotation.visibility.pixels.argmax(0)
    single = {}
    for number, label in enumerate(LABELS):
        present, count, *centre, length, first_seen = targets.numbers[number].tolist()
        if not counts[label]:
            assert present == 0
            assert math.isnan(count)
        elif present == 1:
            assert count * 3 == pytest.approx(counts[label])
            assert 0 <= first_seen <= 2
        else:  # there, but hardly seen
            assert math.isnan(present)
        if counts[label] == 1 and present == 1:
            index, box = next((n, thing.box) for n, thing in enumerate(scene.objects) if thing.label == label)
            seen_from = np.linalg.inv(clip.scene_from_cam[best_views[index]])
            wanted = (seen_from @ np.append(box.centre_m, 1.0))[:3]
            assert wanted[2] > 0
            assert np.array(centre) * UNIT_M == pytest.approx(wanted, abs=1e-4)
            assert math.exp(length) == pytest.approx(box.size_m.max(), rel=1e-5)
            single[number] = box
        else:
            assert math.isnan(centre[0])
    assert len(single) >= 2
    one, other = list(single)[:2]
    centres_apart = np.linalg.norm(single[one].centre_m - single[other].centre_m)
    assert 0 <= targets.distances_m[one, other] < centres_apart
    assert targets.distances_m[one, other] == targets.distances_m[other, one]


@pytest.fixture
def things():
    """Five classes on a plan: 3 stands at the origin, 5 two metres north, 7 to the east, 9 south-west, 11 unknown."""
    numbers, plan, apart = np.full((40, 7), np.nan), np.full((40, 2), np.nan), np.full((40, 40), np.nan)
    for label, place, first_seen in ((3, (0, 0), 0.2), (5, (0, 2), 0.6), (7, (3, 0.5), 0.1), (9, (-1, -2), 1.0)):
        plan[label] = place
        numbers[label] = (1, 1 / 3, *place, 0, 0, first_seen)
    known = [3, 5, 7, 9]
    apart[np.ix_(known, known)] = np.linalg.norm(plan[known][:, None] - plan[known], axis=-1)
    return ThingTargets(numbers, plan, apart)


def test_relations_are_to_the_thing_before_and_to_somebody_at_the_first_thing_who_faces_the_second(things):
    named = [-1, 3, -1, 5, -1, 7, 9, 11]
    read = mention_targets(QuestionNames.of(named, in_sentence=5), things).numpy()
    assert not np.isfinite(read[[0, 2, 4]]).any()
    assert read[1, 1] == pytest.approx(1 / 3)
    assert not np.isfinite(read[1, 7:]).any()  # nothing was named before it
    later, to_previous, to_first, right, ahead = read[5, 7:12]
    assert later == pytest.approx(0.1 - 0.6)
    assert math.exp(to_previous) == pytest.approx(math.hypot(3, 1.5))
    assert math.exp(to_first) == pytest.approx(math.hypot(3, 0.5))
    assert (right * UNIT_M, ahead * UNIT_M) == pytest.approx((3, 0.5))  # from 3 facing north, 7 is to the east
    assert read[6, 10:12] * UNIT_M == pytest.approx((-1, -2))
    assert not np.isfinite(read[7, 7:]).any()


def test_the_last_name_of_each_option_has_the_target_whether_it_is_right(things):
    names = QuestionNames.of([5, 7, 3, -1, -1, 5, -1, 7], in_sentence=3, options=2, right=1)
    closest = mention_targets(names, things).numpy()
    assert closest[[5, 7], 12].tolist() == [0.0, 1.0]
    assert np.isfinite(closest[:, 12]).sum() == 2
    # Options are compared with what is asked about, the last name before them.
    assert math.exp(closest[7, 9]) == pytest.approx(math.hypot(3, 0.5))
    names = QuestionNames.of([3, 5, -1, 3, 5, -1, 5, 3], in_sentence=2, options=2)
    order = mention_targets(names, things).numpy()
    assert order[[4, 7], 12].tolist() == [1.0, 0.0]
    assert order[7, 7] == pytest.approx(0.2 - 0.6)
    names = QuestionNames.of([3, 5, 7, -1], in_sentence=3, options=2)  # "left" and "right" name nothing
    direction = mention_targets(names, things).numpy()
    assert not np.isfinite(direction[:, 12]).any()
    assert math.exp(direction[2, 9]) == pytest.approx(math.hypot(3, 0.5))  # then the first name is asked about


def test_the_loss_counts_known_targets_and_nothing_else():
    head = MentionHead(8)
    states, wanted = torch.randn(3, 8), torch.full((3, 14), math.nan)
    nothing = head(states, states, states, wanted)
    assert float(nothing["mention_loss"].detach()) == 0
    wanted[1, 0] = wanted[2, 0] = head.things(states)[1:, 0].detach().sum() * 0  # two names
    with torch.no_grad():
        for part in (head.things, head.relations, head.answers):
            part[1].weight.zero_()
            part[1].bias.zero_()
        head.answers[1].bias.fill_(math.log(2.0))
        head.relations[1].bias[5] = 1.0
    wanted[1, 2:5] = torch.tensor([2.0, 0.0, 0.0])
    found = head(states, states, states, wanted)
    assert float(found["place_error_m"]) == pytest.approx(2.0 * UNIT_M, rel=1e-5)
    assert float(found["mention_loss"].detach()) == pytest.approx((2.0 - 0.1) / 2, rel=1e-5)  # Huber 0.2, two names
    wanted[0, 13] = math.log(8.0)
    wanted[1, 12], wanted[2, 12] = 0.0, 1.0
    found = head(states, states, states, wanted)
    assert float(found["answer_error"]) == pytest.approx(math.log(4.0), rel=1e-5)
    assert float(found["options_right"]) == pytest.approx(0.5)
