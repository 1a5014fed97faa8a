"""What the things are that a question names, and where: a second thing for the language model to learn from.

A question about a chair is answered by way of the chair's tokens. Short answers alone teach that way slowly; so a
reading of the middle layer, which training drops at the end, has to say at the word "chair" itself how many chairs
there are, where the only one is, how long it is, and when it is first seen. Another one says the logarithm of an answer
that is a number, where the answer begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from spatial_mllm_ros.datasets.rooms.catalog import LABELS
from spatial_mllm_ros.datasets.scene_annotation import SceneAnnotation
from spatial_mllm_ros.datasets.scene_questions.evidence import Evidence, Limits
from spatial_mllm_ros.geometry.poses import inverse_pose
from spatial_mllm_ros.models.tokenization import ChatTokenizer
from spatial_mllm_ros.training.token_truth import UNIT_M

#: Numbers about a class: is there one, how many / 3, centre of the only one in the first camera / UNIT_M (3), logarithm
#: of its longest side in metres, 2 x share of the video before it is first seen well.
NUMBERS = 7
NOBODY = -1  # a token that names nothing
_COUNT_UNIT, _TIME_UNIT = 3.0, 0.5
_HUBER = 0.2


def thing_truth(scene: SceneAnnotation) -> torch.Tensor:
    """What is true of each class, float32 [K, NUMBERS]; NaN where it is unknown or has no one answer.

    Args:
        scene: with visibility.
    """
    evidence, seen = Evidence(scene, Limits()), scene.visibility
    truth = torch.full((len(LABELS), NUMBERS), math.nan)
    if seen is None:
        return truth
    appearances = evidence.appearances()
    first_from_scene = inverse_pose(seen.scene_from_cam[0])
    for row, label in zip(truth, LABELS, strict=True):
        things = evidence.by_label.get(label, [])
        if not things:
            row[0] = 0.0
        if label not in appearances:  # there, and not seen well: neither yes nor no
            continue
        row[0] = 1.0
        row[1] = len(things) / _COUNT_UNIT
        row[6] = appearances[label][1] / len(seen.stamps_ns) / _TIME_UNIT
        if len(things) == 1:
            box = things[0].box
            centre_m = first_from_scene[:3, :3] @ box.centre_m + first_from_scene[:3, 3]
            row[2:5] = torch.from_numpy(centre_m).float() / UNIT_M
            row[5] = math.log(float(box.size_m.max()))
    return truth


class Mentions:
    """Finds the names of things among tokens."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._labels: dict[tuple[int, ...], int] = {}
        for number, label in enumerate(LABELS):
            for text in (label, f" {label}"):
                self._labels[tuple(tokenizer.encode_text(text))] = number
        self._longest = max(len(ids) for ids in self._labels)

    def of(self, ids: Sequence[int]) -> list[int]:
        """Per token the index in ``LABELS`` of the name that ends with it, of several the longest; else ``NOBODY``."""
        found = [NOBODY] * len(ids)
        end = len(ids)
        while end > 0:
            length = next(
                (n for n in range(min(self._longest, end), 0, -1) if tuple(ids[end - n : end]) in self._labels), 0
            )
            if length:
                found[end - 1] = self._labels[tuple(ids[end - length : end])]
            end -= length or 1
        return found


def word_tokens(tokenizer: ChatTokenizer, words: Sequence[str]) -> torch.Tensor:
    """The token that each word ends with, int64 [len(words)]: its only one where the vocabulary holds the word."""
    return torch.tensor([tokenizer.encode_text(word)[-1] for word in words])


class MentionHead(nn.Module):
    """Readings of the language model's states of width D at names of things, and where answers begin."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.things = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, NUMBERS))
        self.answers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(
        self, middle: torch.Tensor, truth: torch.Tensor, last: torch.Tensor, numbers: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Means over the names and the answers of a batch.

        Args:
            middle: [M, D], states of a middle layer at M names.
            truth: [M, NUMBERS], with NaN where a number is unknown.
            last: [A, D], states of the last layer where A answers that are numbers begin.
            numbers: [A], the answers, above 0.

        Returns:
            ``mention_loss``; ``place_error_m`` of things of which there is one; ``answer_error``, of the logarithm.
        """
        read, known = self.things(middle.float()), truth.isfinite()
        wanted = truth.nan_to_num(0.0)
        errors = F.smooth_l1_loss(read, wanted, beta=_HUBER, reduction="none")
        loss = (errors * known).sum() / max(1, len(read))
        apart_m = (read - wanted)[:, 2:5].norm(dim=-1) * UNIT_M
        single = known[:, 2]
        found = self.answers(last.float())[:, 0]
        off = found - numbers.log()
        loss = loss + F.huber_loss(found, numbers.log(), delta=_HUBER, reduction="sum") / max(1, len(found)) / _HUBER
        return {
            "mention_loss": loss,
            "place_error_m": ((apart_m * single).sum() / single.sum().clamp(min=1)).detach(),
            "answer_error": (off.abs().sum() / max(1, len(found))).detach(),
        }
