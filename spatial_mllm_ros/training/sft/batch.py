"""Batches of tokens from conversations: labels, attention mask and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from spatial_mllm_ros.errors import QuestionError, SampleRejectedError
from spatial_mllm_ros.models.spatial_mllm.mrope import MropeRule, mrope_position_ids
from spatial_mllm_ros.models.spatial_mllm.preparation import PreparedImage, PreparedVideo
from spatial_mllm_ros.models.spatial_mllm.prompts import context_ids, question_ids
from spatial_mllm_ros.models.spatial_mllm.tokenization import TURN_END, TURN_START, ChatTokenizer
from spatial_mllm_ros.training.supervision.attention import Pointers
from spatial_mllm_ros.training.supervision.mentions import READINGS
from spatial_mllm_ros.training.supervision.tokens import TokenTargets

IGNORED = -100  # label of tokens that are not learned
_CONTEXT, _PADDING = 0, -1


@dataclass(frozen=True, eq=False)
class Dialogue:
    """The tokens after the context: questions and answers in turn, with their labels and targets.

    Attributes:
        ids: token ids.
        labels: the same ids where a token belongs to an answer or ends it, else IGNORED.
        readings: float32 [tokens, READINGS], targets of mention supervision, see ``supervision.mentions``, or None.
        pointers: targets of attention supervision, see ``supervision.attention``, or None.
    """

    ids: list[int]
    labels: list[int]
    readings: torch.Tensor | None = None
    pointers: Pointers | None = None

    @property
    def answer_start(self) -> int:
        """Index of the first token of the first answer."""
        return next(place for place, label in enumerate(self.labels) if label != IGNORED)


@dataclass(frozen=True, eq=False)
class SftRow:
    """A video or image with dialogues about it, and the targets of its visual tokens if they are known."""

    prepared: PreparedVideo | PreparedImage
    dialogues: Sequence[Dialogue]
    token_targets: TokenTargets | None = None


@dataclass(frozen=True, eq=False)
class SftBatch:
    """The input and the labels of one forward pass.

    Attributes:
        input_ids: int64 [B, L], padded on the right.
        labels: int64 [B, L], IGNORED where nothing is learned.
        position_ids: int64 [3, B, L].
        attention_mask: None if every token attends to all tokens before it; int64 [B, L] with 0 at padding; or bool
            [B, 1, L, L] if dialogues share a context.
        prepared: the media of the rows, in order.
        token_targets: targets of the rows' visual tokens, None if they are not known.
        readings: float32 [B, L, READINGS], targets of mention supervision; NaN where there are none.
        names, answers: int64 [N, 1 + NAME_COLUMNS] and [A, 3], the number of a row and then a row of ``Pointers``.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    prepared: tuple[PreparedVideo | PreparedImage, ...]
    token_targets: tuple[TokenTargets | None, ...]
    readings: torch.Tensor
    names: torch.Tensor
    answers: torch.Tensor

    @property
    def learned_tokens(self) -> int:
        """How many tokens the loss is a sum over."""
        return int((self.labels != IGNORED).sum())

    @property
    def weight(self) -> int:
        """How much the batch counts among others: its learned tokens, or its rows if there are no dialogues."""
        return self.learned_tokens or len(self.prepared)


def encode_dialogue(tokenizer: ChatTokenizer, turns: Sequence[tuple[str, str]]) -> Dialogue:
    """Questions and answers in Qwen's chat layout, beginning after the frames in the user's first turn.

    The labels are the answers and the token that ends each of them.

    Raises:
        SampleRejectedError: a text that cannot be encoded.
    """
    ids: list[int] = []
    labels: list[int] = []
    try:
        for number, (question, answer) in enumerate(turns):
            again = [*tokenizer.encode_text("\n"), tokenizer.control_id(TURN_START), *tokenizer.encode_text("user\n")]
            asked = [*(again if number else []), *question_ids(tokenizer, question)]
            answered = [*tokenizer.encode_text(answer), tokenizer.control_id(TURN_END)]
            ids += asked + answered
            labels += [IGNORED] * len(asked) + answered
    except QuestionError as error:
        raise SampleRejectedError("text", str(error)) from error
    return Dialogue(ids, labels)


def build_batch(tokenizer: ChatTokenizer, rows: Sequence[SftRow], rule: MropeRule) -> SftBatch:
    """Makes one batch of rows.

    Several dialogues of a row share the context's tokens. Each attends to the context and to itself, and has the
    positions that it would have alone, so the row's loss is the sum of the losses of its dialogues.
    """
    built = [_row(tokenizer, row, rule) for row in rows]
    length = max(ids.shape[0] for ids, *_ in built)
    count = len(built)
    input_ids = torch.full((count, length), tokenizer.pad_id)
    labels = torch.full((count, length), IGNORED)
    positions = torch.ones((3, count, length), dtype=torch.long)
    owner = torch.full((count, length), _PADDING)
    readings = torch.full((count, length, READINGS), torch.nan)
    names, answers = [], []
    for row, (ids, learned, places, blocks, read, pointing) in enumerate(built):
        size = ids.shape[0]
        input_ids[row, :size], labels[row, :size], owner[row, :size] = ids, learned, blocks
        positions[:, row, :size], readings[row, :size] = places, read
        names += [F.pad(part.names, (1, 0), value=row) for part in pointing]
        answers += [F.pad(part.answers, (1, 0), value=row) for part in pointing]
    media, token_targets = (tuple(getattr(row, name) for row in rows) for name in ("prepared", "token_targets"))
    return SftBatch(
        *(input_ids, labels, positions, _mask(owner), media, token_targets, readings),
        torch.cat(names),
        torch.cat(answers),
    )


class _BuiltRow(NamedTuple):
    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor  # [3, L]
    owners: torch.Tensor  # 0 the context, n the n-th dialogue
    readings: torch.Tensor
    pointing: list[Pointers]


def _row(tokenizer: ChatTokenizer, row: SftRow, rule: MropeRule) -> _BuiltRow:
    prepared = row.prepared
    context = context_ids(tokenizer, prepared)
    is_video = isinstance(prepared, PreparedVideo)
    grid = prepared.video_grid_thw if isinstance(prepared, PreparedVideo) else prepared.image_grid_thw
    places, _ = mrope_position_ids(
        torch.tensor([context]),
        None,
        rule,
        video_grid_thw=grid if is_video else None,
        image_grid_thw=None if is_video else grid,
    )
    after = int(places.max()) + 1
    ids, labels, blocks = list(context), [IGNORED] * len(context), [_CONTEXT] * len(context)
    positions = [places[:, 0]]
    readings = [torch.full((len(context), READINGS), torch.nan)]
    pointing = [Pointers.none()]
    for number, dialogue in enumerate(row.dialogues, 1):
        if dialogue.pointers is not None:
            pointing.append(dialogue.pointers.moved(len(ids)))
        ids += dialogue.ids
        none = torch.full((len(dialogue.ids), READINGS), torch.nan)
        readings.append(none if dialogue.readings is None else dialogue.readings)
        labels += dialogue.labels
        blocks += [number] * len(dialogue.ids)
        positions.append(torch.arange(after, after + len(dialogue.ids)).expand(3, -1))
    tensors = (torch.tensor(ids), torch.tensor(labels), torch.cat(positions, dim=1), torch.tensor(blocks))
    return _BuiltRow(*tensors, torch.cat(readings), pointing)


def _mask(owner: torch.Tensor) -> torch.Tensor | None:
    if int(owner.max()) <= 1:
        padded = owner == _PADDING
        return (~padded).long() if bool(padded.any()) else None
    length = owner.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    # Padding attends to padding, so that no row of the mask is empty.
    visible = (owner[:, :, None] == owner[:, None, :]) | ((owner == _CONTEXT)[:, None, :] & (owner > 0)[:, :, None])
    return (causal & visible)[:, None]
