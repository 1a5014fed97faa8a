"""Auxiliary supervision of attention: which tokens the heads of the language model should attend to.

To answer "Is there a sofa?", a model attends from the word to the tokens that show a sofa, and from the answer to the
word. As long as attention does neither, the gradient of the answer says nothing about where to attend, and the loss
does not fall for thousands of steps, even if every visual token is the word for what it shows. In generated rooms it is
known which tokens show what, so a loss tells heads of certain layers where their attention belongs. Nothing is added to
the model; the trained heads keep attending there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from spatial_mllm_ros.errors import TrainingError
from spatial_mllm_ros.models.spatial_mllm.connectors import MERGED_PATCHES, Fusion, merged_rows
from spatial_mllm_ros.training.supervision.question_names import QuestionNames
from spatial_mllm_ros.training.supervision.tokens import TokenTargets

NOWHERE = -1  #: token number of a name that there is none of
NAME_COLUMNS = 6
TOKEN, LABEL, ASKED, ASKED_LABEL, BEFORE, FIRST = range(NAME_COLUMNS)  #: columns of ``Pointers.names``
_KEPT = "sdpa_with_queries_kept"
_LEAST_LAYERS, _LEAST_HEADS = 5, 4
_HUBER = 0.1


class Look(Enum):
    """What a head attends to from the name of a thing: the first token of the prompt if there is no such thing."""

    ANY = "tokens that show it"
    BEST = "those of the frame pair that shows most of it"
    FIRST = "those of the first frame pair that shows it"
    JOINT = "those of the frame pair that shows most of both it and the thing asked about"
    JOINT_OTHER = "the tokens of the thing asked about in the frame pair of JOINT"


class Hop(Enum):
    """Which earlier name a head attends to from a name."""

    ASKED = ASKED
    BEFORE = BEFORE
    FIRST = FIRST


@dataclass(frozen=True, eq=False)
class Pointers:
    """Which tokens of a question belong together.

    Attributes:
        names: int64 [N, NAME_COLUMNS], for each name of a thing its token, its label, then the token and label of the
            name that is asked about, and the tokens of the name before and of the first name; NOWHERE if there is no
            such earlier name with another label.
        answers: int64 [A, 2], the token before an answer and the name that it follows from.
    """

    names: torch.Tensor
    answers: torch.Tensor

    @classmethod
    def none(cls) -> Pointers:
        """No names and no answers."""
        return cls(torch.empty(0, NAME_COLUMNS, dtype=torch.long), torch.empty(0, 2, dtype=torch.long))

    def moved(self, by: int) -> Pointers:
        """The pointers of the question when ``by`` tokens stand before it."""
        tokens = torch.tensor([TOKEN, ASKED, BEFORE, FIRST])
        names = self.names.clone()
        names[:, tokens] += by * (names[:, tokens] != NOWHERE)
        return Pointers(names, self.answers + by)


def pointers_of(names: QuestionNames) -> Pointers:
    """The pointers of a question."""
    pointing = torch.full((len(names.places), NAME_COLUMNS), NOWHERE)
    for n, (place, label) in enumerate(zip(names.places, names.labels, strict=True)):
        pointing[n, TOKEN], pointing[n, LABEL] = place, label
        for column, other in ((ASKED, names.asked), (BEFORE, n - 1), (FIRST, 0)):
            if 0 <= other < n and names.labels[other] != label:
                pointing[n, column] = names.places[other]
        if pointing[n, ASKED] != NOWHERE:
            pointing[n, ASKED_LABEL] = names.labels[names.asked]
    if names.answer_from is None:
        return Pointers(pointing, torch.empty(0, 2, dtype=torch.long))
    return Pointers(pointing, torch.tensor([[names.tokens - 1, names.places[names.answer_from]]]))


def looks(names: torch.Tensor, targets: TokenTargets) -> Mapping[Look, torch.Tensor]:
    """Which of a video's T tokens each of N names should attend to, bool [N, T].

    Args:
        names: int64 [N, NAME_COLUMNS].
    """
    shown = merged_rows(targets.shown.float(), targets.grid, Fusion.V1_0).unflatten(1, (MERGED_PATCHES, -1)).sum(1)
    pairs = len(targets.shown) // 2
    pair_of = torch.arange(pairs).repeat_interleave(len(shown) // pairs)
    in_pair = shown.unflatten(0, (pairs, -1)).sum(1)  # [pairs, K]
    label, asked = names[:, LABEL], names[:, ASKED_LABEL]
    own, other = (shown > 0).T[label], (shown > 0).T[asked] & (asked != NOWHERE)[:, None]
    both = torch.minimum(in_pair.T[label], in_pair.T[asked]) * (asked != NOWHERE)[:, None]  # [N, pairs]
    joint = (pair_of == both.argmax(1, keepdim=True)) & (both.amax(1, keepdim=True) > 0)
    return {
        Look.ANY: own,
        Look.BEST: own & (pair_of == in_pair.argmax(0)[label][:, None]),
        Look.FIRST: own & (pair_of == (in_pair > 0).int().argmax(0)[label][:, None]),
        Look.JOINT: own & joint,
        Look.JOINT_OTHER: other & joint,
    }


def _keep_and_attend(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
) -> Any:
    module.kept = (query, key, mask)  # type: ignore[assignment]
    return sdpa_attention_forward(module, query, key, value, mask, **options)


AttentionInterface.register(_KEPT, _keep_and_attend)
AttentionMaskInterface.register(_KEPT, sdpa_mask)


class AttentionSupervision(nn.Module):
    """The loss of heads of a language model of width D that attend to other tokens than they should.

    Heads of the first layer find things. Heads of the second layer find the views that come first or show two things;
    for these heads, visual tokens have to tell after the first layer when they were seen. Heads of later layers relate
    names to each other, and a head of the last layer relates the answer to a name.

    Raises:
        TrainingError: the model has too few layers or heads.
    """

    def __init__(self, language_model: nn.Module, width: int) -> None:
        super().__init__()
        layers: Any = language_model.layers
        config: Any = language_model.config
        if len(layers) < _LEAST_LAYERS or config.num_attention_heads < _LEAST_HEADS:
            raise TrainingError(
                f"model.attention_supervision needs a language model of {_LEAST_LAYERS} layers and {_LEAST_HEADS} "
                f"heads; this one has {len(layers)} and {config.num_attention_heads}."
            )
        by_layer: dict[int, tuple[Look | Hop, ...]] = {
            0: (Look.ANY, Look.BEST, Hop.ASKED, Hop.BEFORE),
            1: (Look.FIRST, Look.JOINT, Look.JOINT_OTHER, Look.ANY),
            len(layers) // 2: (Hop.ASKED, Hop.BEFORE, Hop.FIRST),
            len(layers) - 2: (Hop.ASKED, Hop.BEFORE, Hop.FIRST),
        }
        self._rules = [(layer, head, what) for layer, heads in by_layer.items() for head, what in enumerate(heads)]
        self._last = len(layers) - 1
        self._attention = [layer.self_attn for layer in layers]
        self._early = torch.empty(0)
        layers[0].register_forward_hook(self._keep)
        config._attn_implementation = _KEPT
        self.when = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._early = output[0] if isinstance(output, tuple) else output

    def forward(
        self,
        names: torch.Tensor,
        answers: torch.Tensor,
        visual: torch.Tensor,
        token_targets: Sequence[TokenTargets | None],
        sees: Sequence[bool],
    ) -> dict[str, torch.Tensor]:
        """Terms of the language model's latest forward pass.

        Args:
            names: int64 [N, 1 + NAME_COLUMNS]: the number of the row, then a row of ``Pointers.names``.
            answers: int64 [A, 3]: the number of the row, then a row of ``Pointers.answers``.
            visual: bool [B, L], which tokens belong to the video.
            token_targets: targets of the B rows; a row without targets has no names.
            sees: whether a row shows its video; if not, all names should attend to the first token.

        Returns:
            ``attention_loss``, the sum over heads of the mean of -log(share of the attention that goes where it
            should); ``found``, the mean of that share for the heads with ``Look.ANY``.
        """
        found: list[torch.Tensor] = []
        losses: dict[object, list[torch.Tensor]] = {}
        time_errors: list[torch.Tensor] = []
        for row, targets in enumerate(token_targets):
            if targets is None:
                continue
            in_video = visual[row].nonzero()[:, 0]
            share = (torch.arange(len(in_video), device=visual.device) / len(in_video)).float()
            said = self.when(self._early[row, in_video].float())[:, 0]
            time_errors.append(F.smooth_l1_loss(said, share, beta=_HUBER))
            mine = names[names[:, 0] == row][:, 1:]
            if len(mine):
                wanted = looks(mine.cpu(), targets)
                for layer, head, what in self._rules:
                    at, target = _targets(mine, what, wanted, in_video, sees[row], visual.shape[1])
                    if len(at):
                        shares = self._share(layer, head, row, at, target)
                        losses.setdefault((layer, head), []).append(shares)
                        if what is Look.ANY:
                            found.append(shares)
            ends = answers[answers[:, 0] == row][:, 1:]
            if len(ends):
                target = F.one_hot(ends[:, 1], visual.shape[1]).bool()
                losses.setdefault(self._last, []).append(self._share(self._last, 0, row, ends[:, 0], target))
        zero = torch.zeros((), device=visual.device)
        loss = sum((-torch.cat(parts).mean() for parts in losses.values()), zero)
        if time_errors:
            loss = loss + torch.stack(time_errors).mean()
        return {"attention_loss": loss, "found": torch.cat(found).exp().mean().detach() if found else zero}

    def _share(self, layer: int, head: int, row: int, at: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logarithms [N] of the share of a head's attention, at N tokens, that goes to the targets, bool [N, L]."""
        attention: Any = self._attention[layer]
        query, key, mask = attention.kept
        keys = key[row, head // (query.shape[1] // key.shape[1])].float()
        scores = query[row, head, at].float() @ keys.T * attention.scaling
        if mask is None:
            allowed = torch.arange(len(keys), device=at.device) <= at[:, None]
        else:
            allowed = mask[row, 0, at]
            allowed = allowed if allowed.dtype == torch.bool else allowed == 0
        shares = scores.masked_fill(~allowed, -torch.inf).log_softmax(-1)
        return shares.masked_fill(~target, -torch.inf).logsumexp(-1)


def _targets(
    names: torch.Tensor,
    what: Look | Hop,
    wanted: Mapping[Look, torch.Tensor],
    in_video: torch.Tensor,
    sees: bool,
    length: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n] of the names that the rule is about, and which tokens they should attend to, bool [n, length]."""
    if isinstance(what, Hop):
        known = names[:, what.value] != NOWHERE
        return names[known, TOKEN], F.one_hot(names[known, what.value], length).bool()
    asked = names[:, ASKED_LABEL] != NOWHERE
    about = asked if what in (Look.JOINT, Look.JOINT_OTHER) else torch.ones_like(asked)
    target = torch.zeros(int(about.sum()), length, dtype=torch.bool, device=names.device)
    target[:, in_video] = wanted[what].to(names.device)[about] & sees
    target[:, 0] |= ~target.any(1)
    return names[about, TOKEN], target
