"""Fine-tuning samples from generated rooms: clips, their questions, and the targets of supervision."""

from __future__ import annotations

import itertools
import math
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch

from spatial_mllm_ros.models.checkpoints.loading import LoadedSpatialMllm
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.preparation import prepare_video
from spatial_mllm_ros.models.spatial_mllm.prompts import user_text
from spatial_mllm_ros.rooms.clips import Clip, ClipConfig
from spatial_mllm_ros.rooms.renderer.sensor import REALISTIC
from spatial_mllm_ros.rooms.stream import RoomStream, StreamConfig, first_batch_of
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.rooms.world.world import GENERATOR
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation
from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion
from spatial_mllm_ros.storage import json_sha256
from spatial_mllm_ros.training.sft.batch import Dialogue, SftRow, encode_dialogue
from spatial_mllm_ros.training.sft.config import SftDataConfig
from spatial_mllm_ros.training.sft.room_pool import RoomPool
from spatial_mllm_ros.training.supervision.attention import pointers_of
from spatial_mllm_ros.training.supervision.mentions import (
    ANSWER,
    READINGS,
    ThingTargets,
    mention_targets,
    thing_targets,
)
from spatial_mllm_ros.training.supervision.question_names import NO_NAME, Mentions, QuestionNames
from spatial_mllm_ros.training.supervision.tokens import token_targets

_SHAPE_PX = (84, 112)  # height and width; the checkpoint's budget makes the size of it
_SENSOR = replace(REALISTIC, blur_samples=0)  # with blur, rendering takes four times as long
_LEAST_PIXELS = 12  # of the whole video: a thing that fewer pixels show is not listed
DESCRIBE = "List the objects that are in this video, and the size of the rooms."


#: The words that vary within the fixed wording of questions about rooms, for the tokenizer.
VARYING_WORDS = (*LABELS, "left", "right", "back", "front", "turn", "yes", "no", "rooms")


def room_texts(rooms: int, fusion: Fusion, *, questions: int = 3) -> Iterator[str]:
    """Prompts about ``rooms`` rooms of the training split, and their answers, to train a tokenizer on."""
    config = StreamConfig(worlds=1, clip=ClipConfig(frames=8, width_px=56, height_px=42), questions_per_type=questions)
    for batch in itertools.islice(iter(RoomStream(config)), rooms):
        for question in batch.questions[0]:
            yield user_text(question.text, question.options, fusion, numeric=question.type.is_number)
            yield question.truth
        yield user_text(DESCRIBE, (), fusion)
        yield description(batch.clips[0].annotation)


class RoomRows:
    """The rows of a step: one video per room, with all its questions; each step has new rooms.

    Args:
        data: ``rooms_frames`` are taken in turn, ``rooms_questions`` is the number per type and room. Without questions
            and descriptions rows have no dialogues, and token supervision is the only loss.
        token_targets: whether rows have the targets of token supervision; each kind of targets takes time per room.
        mention_targets: whether dialogues have the targets of mention supervision.
        pointers: whether dialogues have the targets of attention supervision.
    """

    def __init__(
        self,
        loaded: LoadedSpatialMllm,
        data: SftDataConfig,
        *,
        seed: int,
        token_targets: bool = True,
        mention_targets: bool = True,
        pointers: bool = True,
    ) -> None:
        self._loaded, self._data = loaded, data
        self._token_targets, self._mention_targets, self._pointers = token_targets, mention_targets, pointers
        self._mentions = Mentions(loaded.tokenizer)
        self._first = first_batch_of(seed)
        settings = {
            "generator": GENERATOR,
            "clips": [asdict(self._clip(frames)) for frames in data.rooms_frames],
            "questions": data.rooms_questions,
            "types": data.rooms_types,
            "describe": data.rooms_describe,
            "pool": data.rooms_pool,
        }
        self.sha256 = {"rooms": json_sha256(settings)}

    def rows(self, number: int, count: int, turn: int) -> list[SftRow]:
        """``count`` rows of a step's part ``number``: always the same ones.

        Args:
            turn: selects the number of frames. Processes that wait for each other should use the same one.
        """
        frames = self._data.rooms_frames[turn % len(self._data.rooms_frames)]
        types = tuple(QuestionType(kind) for kind in self._data.rooms_types) or tuple(QuestionType)
        asked = self._data.rooms_questions
        config = StreamConfig(worlds=count, clip=self._clip(frames), questions_per_type=asked, types=types)
        batch = RoomStream(config).batch(self._first + number)
        return [self._row(clip, questions) for clip, questions in zip(batch.clips, batch.questions, strict=True)]

    def pool(self, rank: int, ranks: int) -> RoomPool:
        """Renders the process's share of ``data.rooms_pool`` rooms."""
        clip = self._clip(max(self._data.rooms_frames))
        budget = self._loaded.budget
        return RoomPool(self._data.rooms_pool, clip, budget, first=self._first, rank=rank, ranks=ranks)

    def rows_of(self, pool: RoomPool, number: int, count: int, turn: int) -> list[SftRow]:
        """Like ``rows``, without dialogues and from a pool; together as many frames as in ``count`` longest rows."""
        frames = self._data.rooms_frames[turn % len(self._data.rooms_frames)]
        longest = max(self._data.rooms_frames)
        return pool.rows(count * longest // frames, frames, (self._first, number))

    def _row(self, clip: Clip, questions: Sequence[SceneQuestion]) -> SftRow:
        fusion = self._loaded.fusion
        things = thing_targets(clip.annotation) if self._mention_targets else None
        dialogues = [self._dialogue(question, things) for question in questions]
        if self._data.rooms_describe:
            asked = (user_text(DESCRIBE, (), fusion), description(clip.annotation))
            dialogues.append(encode_dialogue(self._loaded.tokenizer, [asked]))
        prepared = prepare_video(list(clip.rgb.cpu().numpy()), self._loaded.budget)
        return SftRow(prepared, dialogues, token_targets(clip) if self._token_targets else None)

    def _dialogue(self, question: SceneQuestion, things: ThingTargets | None) -> Dialogue:
        tokenizer, options = self._loaded.tokenizer, question.options
        text = user_text(question.text, options, self._loaded.fusion, numeric=question.type.is_number)
        plain = encode_dialogue(tokenizer, [(text, question.truth)])
        if things is None and not self._pointers:
            return plain
        named = self._mentions.of(plain.ids[: plain.answer_start])
        in_sentence = sum(label != NO_NAME for label in self._mentions.of(tokenizer.encode_text(question.text)))
        right = string.ascii_uppercase.index(question.truth) if options else 0
        names = QuestionNames.of(named, in_sentence=in_sentence, options=len(options), right=right)
        if self._pointers:
            plain = replace(plain, pointers=pointers_of(names))
        if things is None:
            return plain
        readings = torch.full((len(plain.ids), READINGS), torch.nan)
        readings[: len(named)] = mention_targets(names, things)
        if question.type.is_number:
            readings[plain.answer_start - 1, ANSWER] = math.log(float(question.truth))
        return replace(plain, readings=readings)

    def _clip(self, frames: int) -> ClipConfig:
        height, width = self._loaded.budget.size_px(
            *_SHAPE_PX
        )  # the size that the model sees, so that nothing is resized
        return ClipConfig(frames=frames, width_px=width, height_px=height, sensor=_SENSOR)


def description(scene: SceneAnnotation) -> str:
    """The things that a video shows with their number, in the order of ``LABELS``, and the size of all rooms.

    For example: ``2 rooms, 41 square meters. 3 chair, 1 bed``.
    """
    area = sum(room.area_m2 for room in scene.rooms)
    visible = np.ones(len(scene.objects), bool)
    if scene.visibility is not None:
        visible = scene.visibility.pixels.sum(0) >= _LEAST_PIXELS
    counts = Counter(thing.label for thing, seen in zip(scene.objects, visible, strict=True) if seen)
    things = ", ".join(f"{counts[label]} {label}" for label in LABELS if counts[label])
    return f"{len(scene.rooms)} rooms, {area:.0f} square meters. {things or 'nothing'}"
