"""Chooses questions of many scenes with balanced answers, so that guessing gains nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from spatial_mllm_ros.scene_questions.builder import candidate_questions, with_options
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation
from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion


class AnswerBalancer:
    """Chooses questions scene by scene, so that within each type all answers and all letters come equally often.

    The balancer remembers its choices: use one for a whole data set, or one per process of a training run. Of the
    candidates of a type it takes the one whose answer has been rarest so far (of equal ones: whose answer for this
    class, then whose class), and none whose answer has come more than ``slack`` times as often as the average answer.
    So frequent answers do not crowd out rare ones, but a type may have fewer questions.
    """

    def __init__(self, *, slack: float = 1.25, seed: int = 0) -> None:
        self._slack = slack
        self._rng = np.random.default_rng((seed, 5))
        self._answers: dict[QuestionType, Counter[str]] = defaultdict(Counter)
        self._details: dict[QuestionType, Counter[tuple[str, ...]]] = defaultdict(Counter)
        self._letters: Counter[tuple[QuestionType, int, int]] = Counter()

    def choose(self, candidates: Sequence[SceneQuestion], *, per_type: int = 1) -> list[SceneQuestion]:
        """At most ``per_type`` questions of each type among ``candidates``, in their types' order."""
        by_type: dict[QuestionType, list[SceneQuestion]] = defaultdict(list)
        for candidate in candidates:
            by_type[candidate.type].append(candidate)
            self._answers[candidate.type].setdefault(candidate.bin, 0)
        chosen = []
        for kind in QuestionType:
            pool = by_type.get(kind, [])
            for _ in range(min(per_type, len(pool))):
                best = min(pool, key=self._rarity)
                counts = self._answers[kind]
                if counts[best.bin] > 2 + self._slack * sum(counts.values()) / len(counts):
                    break
                pool.remove(best)
                chosen.append(self._take(best))
        return chosen

    def _rarity(self, candidate: SceneQuestion) -> tuple[float, ...]:
        kind, details, key = candidate.type, self._details[candidate.type], _detail(candidate)
        key_and_answer = (*key, candidate.bin)
        return (
            self._answers[kind][candidate.bin],
            details[key_and_answer],
            details[key],
            self._rng.random(),
        )

    def _take(self, question: SceneQuestion) -> SceneQuestion:
        kind = question.type
        key = _detail(question)
        key_and_answer = (*key, question.bin)
        self._answers[kind][question.bin] += 1
        self._details[kind][key_and_answer] += 1
        self._details[kind][key] += 1
        if not question.options:
            return question
        count = len(question.options)
        letters = list(self._rng.permutation(count))
        letter = int(min(letters, key=lambda n: self._letters[(kind, count, int(n))]))
        self._letters[(kind, count, letter)] += 1
        right = ord(question.truth) - ord("A")
        wrong = [option for n, option in enumerate(question.options) if n != right]
        moved = with_options(question, question.options[right], wrong, letter)
        if kind is QuestionType.CLOSEST:  # its text lists the options
            return replace(moved, text=question.text.replace(", ".join(question.options), ", ".join(moved.options)))
        return moved


def _detail(question: SceneQuestion) -> tuple[str, ...]:
    """What could be correlated with the answer: the class that is asked about, or the class of the right option."""
    return () if question.type is QuestionType.DISTANCE else question.labels[-1:]


def balance_table(questions: Iterable[SceneQuestion]) -> dict[str, dict[str, int]]:
    """How often each bin of answers and each letter comes, per type."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        table[question.type.value][question.bin] += 1
        if question.options:
            table[question.type.value][f"{question.truth} of {len(question.options)}"] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(table.items())}


def balanced_questions(
    scenes: Iterable[SceneAnnotation], *, per_type: int, vocabulary: Sequence[str], seed: int = 0
) -> list[SceneQuestion]:
    """At most ``per_type`` questions of each type per scene, answers balanced over all scenes.

    Args:
        vocabulary: classes that a scene may have, see ``candidate_questions``.
    """
    balancer = AnswerBalancer(seed=seed)
    return [
        question
        for scene in scenes
        for question in balancer.choose(candidate_questions(scene, seed=seed, vocabulary=vocabulary), per_type=per_type)
    ]
