"""Language-only baselines: they answer scene questions from the questions and from past answers alone."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from spatial_mllm_ros.scene_questions.scene_question import QuestionType, SceneQuestion
from spatial_mllm_ros.scoring.scorers.relative_accuracy import official_mra

Baseline = Callable[[SceneQuestion], str]


def score(question: SceneQuestion, answer: str) -> float:
    """0..1 by the rules of VSI-Bench: mean relative accuracy for numbers, exact match for letters."""
    if not question.type.is_number:
        return float(answer == question.truth)
    return official_mra(float(answer), float(question.truth))


def constant_baseline(past: Sequence[SceneQuestion]) -> Baseline:
    """Always the most frequent letter; for numbers the past answer that would have scored best."""
    answers: dict[tuple[QuestionType, int], str] = {}
    for key, questions in _grouped(past).items():
        if key[0].is_number:
            candidates = sorted({question.truth for question in questions}, key=float)
            answers[key] = max(candidates, key=lambda c: sum(score(q, c) for q in questions))
        else:
            answers[key] = Counter(question.truth for question in questions).most_common(1)[0][0]
    return lambda question: answers.get(_key(question), "A" if question.options else "1")


def median_baseline(past: Sequence[SceneQuestion]) -> Baseline:
    """The median of past answers for numbers, the most frequent letter otherwise."""
    letters = constant_baseline(past)
    medians = {
        key: str(float(np.median([float(question.truth) for question in questions])))
        for key, questions in _grouped(past).items()
        if key[0].is_number
    }
    return lambda question: medians.get(_key(question), letters(question))


def class_baseline(past: Sequence[SceneQuestion]) -> Baseline:
    """What a reader of the question can know: numbers by the class asked about, options by how often they are right."""
    fallback = constant_baseline(past)
    numbers: dict[tuple[QuestionType, tuple[str, ...]], list[float]] = defaultdict(list)
    shown: Counter[tuple[QuestionType, str]] = Counter()
    right: Counter[tuple[QuestionType, str]] = Counter()
    for question in past:
        if question.type.is_number:
            numbers[(question.type, tuple(sorted(question.labels)))].append(float(question.truth))
        for text in question.options:
            shown[(question.type, text)] += 1
        if question.options:
            right[(question.type, question.truth_text)] += 1

    def answer(question: SceneQuestion) -> str:
        if question.options:
            rates = [
                (right[(question.type, text)] + 0.5) / (shown[(question.type, text)] + 2.0) for text in question.options
            ]
            return chr(ord("A") + int(np.argmax(rates)))
        known = numbers.get((question.type, tuple(sorted(question.labels))), [])
        return str(float(np.median(known))) if len(known) >= 3 else fallback(question)

    return answer


def held_out_answers(
    questions: Sequence[SceneQuestion], make: Callable[[Sequence[SceneQuestion]], Baseline]
) -> list[str]:
    """An answer to each question; ``make`` learns from one half of the scenes for the other half, both ways."""
    halves = _halves(questions)
    baselines = [make([questions[n] for n in half]) for half in halves]
    answers = [""] * len(questions)
    for half, baseline in zip(halves, reversed(baselines), strict=True):
        for n in half:
            answers[n] = baseline(questions[n])
    return answers


def chance_scores(questions: Sequence[SceneQuestion]) -> list[float]:
    """The expected score, 0..1, of a random letter; for numbers, of a random truth of the type from the other half."""
    halves = _halves(questions)
    expected = [0.0] * len(questions)
    for half, other in zip(halves, reversed(halves), strict=True):
        past = _grouped([questions[n] for n in other])
        for n in half:
            question = questions[n]
            if question.options:
                expected[n] = 1.0 / len(question.options)
            elif drawn := past.get(_key(question)):
                expected[n] = float(np.mean([score(question, other_question.truth) for other_question in drawn]))
    return expected


def language_scores(questions: Sequence[SceneQuestion]) -> dict[str, dict[str, float]]:
    """Per type the number of questions and the score of each baseline, 0..100.

    The baselines learn from the answers in one half of the scenes and are scored on the other half, and the other way
    round. ``chance`` is a random letter; it has no meaning for numbers.
    """
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    makers = {"constant": constant_baseline, "median": median_baseline, "class prior": class_baseline}
    for name, make in makers.items():
        for question, answer in zip(questions, held_out_answers(questions, make), strict=True):
            scores[question.type.value][name].append(score(question, answer))
    for question in questions:
        if question.options:
            scores[question.type.value]["chance"].append(1.0 / len(question.options))
    return {
        kind: {"questions": float(len(row["constant"]))} | {name: 100.0 * float(np.mean(v)) for name, v in row.items()}
        for kind, row in sorted(scores.items())
    }


def _halves(questions: Sequence[SceneQuestion]) -> tuple[list[int], list[int]]:
    """Positions of the questions about two halves of the scenes."""
    halves: tuple[list[int], list[int]] = ([], [])
    for n, question in enumerate(questions):
        halves[zlib.crc32(question.scene.encode()) % 2].append(n)
    return halves


def _key(question: SceneQuestion) -> tuple[QuestionType, int]:
    return question.type, len(question.options)


def _grouped(questions: Sequence[SceneQuestion]) -> dict[tuple[QuestionType, int], list[SceneQuestion]]:
    groups: dict[tuple[QuestionType, int], list[SceneQuestion]] = defaultdict(list)
    for question in questions:
        groups[_key(question)].append(question)
    return groups
