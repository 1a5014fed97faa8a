"""Auxiliary supervision of mentions: what the language model should know of a thing at the word that names it.

A model answers a question about a chair through the visual tokens of the chair, and a question about two things through
the tokens of both. Short answers alone teach this slowly. So linear heads on the model's hidden states, which training
drops at the end, predict at the word "chair" how many chairs there are, where a single one lies in the view that shows
most of it, how long it is and when it is first seen; in a later layer where it lies relative to the things named
before, and at the end of an option whether the option is right; and where an answer begins the logarithm of a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.geometry.poses import inverse_pose
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.scene_questions.evidence import Evidence, Limits
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation
from spatial_mllm_ros.training.supervision.question_names import NO_NAME, QuestionNames
from spatial_mllm_ros.training.supervision.tokens import UNIT_M

#: At a name, for its class: whether there is one; how many / 3; the centre of a single one / UNIT_M (3 numbers) in the
#: camera that sees most of it (the first camera would need the camera's motion too); the logarithm of its longest side
#: in metres; 2 x the share of the video before it is first seen well.
THING = slice(0, 7)
#: At a name: how much later it is first seen than the thing named before; the logarithms of the distances in metres to
#: the thing named before and to the thing that is asked about; how far to the right and how far ahead it is / UNIT_M
#: for somebody who stands at the first thing named and faces the second.
RELATION = slice(7, 12)
RIGHT = 12  #: At the last name of an option: 1 if the option is the answer, else 0.
ANSWER = 13  #: Before an answer that is a number: its logarithm.
READINGS = 14
_COUNT_UNIT, _TIME_UNIT = 3.0, 0.5
_HUBER = 0.2
_CLOSEST_M = 0.1  # nearer things count as this far apart, or touching ones would be infinitely near


@dataclass(frozen=True, eq=False)
class ThingTargets:
    """What a video shows of each of the K classes of ``LABELS``; NaN if that is unknown or not unique.

    Attributes:
        numbers: float64 [K, 7], see ``THING``.
        plan_m: float64 [K, 2], where on the plan a single thing stands.
        distances_m: float64 [K, K], between the closest points of single things.
    """

    numbers: np.ndarray
    plan_m: np.ndarray
    distances_m: np.ndarray


def thing_targets(scene: SceneAnnotation) -> ThingTargets:
    """The targets of a scene whose visibility is known.

    Raises:
        ConfigurationError: the visibility is not known.
    """
    if scene.visibility is None:
        raise ConfigurationError(f"Scene {scene.name!r} has no visibility; give one whose frames are known.")
    evidence, count = Evidence(scene, Limits()), len(LABELS)
    appearances = evidence.appearances()
    best_views = scene.visibility.pixels.argmax(0)
    by_id = {thing.id: n for n, thing in enumerate(scene.objects)}
    targets = ThingTargets(np.full((count, 7), np.nan), np.full((count, 2), np.nan), np.full((count, count), np.nan))
    for row, label in zip(targets.numbers, LABELS, strict=True):
        things = evidence.by_label.get(label, [])
        if not things:
            row[0] = 0.0
        if label in appearances:  # a thing that is there but not seen well is neither yes nor no
            row[:2] = 1.0, len(things) / _COUNT_UNIT
            row[6] = appearances[label][1] / len(scene.visibility.stamps_ns) / _TIME_UNIT
    for thing in evidence.unique:
        number, box = LABELS.index(thing.label), thing.box
        cam_from_scene = inverse_pose(scene.visibility.scene_from_cam[best_views[by_id[thing.id]]])
        centre_m = cam_from_scene[:3, :3] @ box.centre_m + cam_from_scene[:3, 3]
        targets.numbers[number, 2:5] = centre_m / UNIT_M
        targets.numbers[number, 5] = math.log(float(box.size_m.max()))
        targets.plan_m[number] = box.centre_m[:2]
        for other in evidence.unique:
            targets.distances_m[number, LABELS.index(other.label)] = evidence.distance_m(thing, other)
    return targets


def mention_targets(names: QuestionNames, targets: ThingTargets) -> torch.Tensor:
    """What is predicted at each token of a question, float32 [tokens, READINGS]; NaN where nothing is."""
    values = np.full((names.tokens, READINGS), np.nan, np.float32)
    asked = names.labels[names.asked] if names.labels else NO_NAME
    for n, (place, label) in enumerate(zip(names.places, names.labels, strict=True)):
        values[place, THING] = targets.numbers[label]
        before = names.labels[n - 1] if n else label
        relation = values[place, RELATION]
        if before != label:
            relation[0] = targets.numbers[label, 6] - targets.numbers[before, 6]
            relation[1] = _log_distance(targets, label, before)
        if asked not in (label, before):
            relation[2] = _log_distance(targets, label, asked)
        first_two = names.labels[:2]
        if n >= 2 and len({*first_two, label}) == 3:
            relation[3:] = _from_first_to_second(*(targets.plan_m[k] for k in (*first_two, label)))
    for option, end in enumerate(names.option_ends):
        values[names.places[end], RIGHT] = float(option == names.right)
    return torch.from_numpy(values)


def _log_distance(targets: ThingTargets, one: int, other: int) -> float:
    return float(np.log(np.maximum(_CLOSEST_M, targets.distances_m[one, other])))  # NaN stays NaN


def _from_first_to_second(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """How far right and how far ahead the third point is / UNIT_M, seen from the first facing the second."""
    ahead = (second - first) / max(_CLOSEST_M, float(np.linalg.norm(second - first)))
    offset = third - first
    return np.array([offset[0] * ahead[1] - offset[1] * ahead[0], offset @ ahead]) / UNIT_M


class MentionHead(nn.Module):
    """Linear heads on hidden states of width D: things in the middle layer, relations in the last layer but one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.things = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, THING.stop))
        self.relations = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, RIGHT + 1 - THING.stop))
        self.answers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(
        self, middle: torch.Tensor, later: torch.Tensor, last: torch.Tensor, wanted: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The terms of a batch, means over its names and answers.

        Args:
            middle, later, last: [N, D], states of three layers at the N tokens at which something is predicted.
            wanted: [N, READINGS], NaN where nothing is predicted.

        Returns:
            ``mention_loss``; ``place_error_m`` of single things; ``options_right``, the share of options that are
            correctly classified as right or wrong; ``answer_error``, of the logarithm.
        """
        parts = (self.things(middle.float()), self.relations(later.float()), self.answers(last.float()))
        read, known = torch.cat(parts, dim=-1), wanted.isfinite()
        target = wanted.nan_to_num(0.0)
        errors = F.smooth_l1_loss(read, target, beta=_HUBER, reduction="none")
        choice = F.binary_cross_entropy_with_logits(read[:, RIGHT], target[:, RIGHT], reduction="none")
        errors = torch.cat((errors[:, :RIGHT], choice[:, None], errors[:, ANSWER:]), dim=-1) * known
        names, answers = known[:, 0].sum(), known[:, ANSWER].sum()
        loss = errors[:, :ANSWER].sum() / names.clamp(min=1) + errors[:, ANSWER].sum() / answers.clamp(min=1)

        def mean(values: torch.Tensor, column: int) -> torch.Tensor:
            counted = known[:, column]
            return ((values * counted).sum() / counted.sum().clamp(min=1)).detach()

        return {
            "mention_loss": loss,
            "place_error_m": mean((read - target)[:, 2:5].norm(dim=-1) * UNIT_M, 2),
            "options_right": mean(((read[:, RIGHT] > 0) == (target[:, RIGHT] > 0)).float(), RIGHT),
            "answer_error": mean((read - target)[:, ANSWER].abs(), ANSWER),
        }
