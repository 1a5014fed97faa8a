"""All questions that a scene answers without ambiguity: one function per type, from the scene annotation alone.

Ambiguous candidates are left out: about things of which there are several, that were hardly seen, that are nearly as
close as another, or that lie near the border between two directions.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from spatial_mllm_ros.scene_questions.directions import quadrant, side_of, side_or_back, turn_angle_deg
from spatial_mllm_ros.scene_questions.evidence import Evidence, Limits
from spatial_mllm_ros.scene_questions.routes import route_candidates
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation, SceneObject
from spatial_mllm_ros.scene_questions.scene_question import WORDING, QuestionType, SceneQuestion

#: Upper ends of the bins by which the answers of number questions are balanced: about equal steps of the logarithm.
BINS: dict[QuestionType, tuple[float, ...]] = {
    QuestionType.COUNT: (1, 2, 3, 4, 5),
    QuestionType.DISTANCE: (0.6, 1.0, 1.6, 2.4, 3.6, 5.5),
    QuestionType.SIZE: (24, 36, 52, 75, 105, 150, 195),
    QuestionType.ROOM: (14, 20, 28, 38, 50, 66),
}
_Maker = Callable[[Evidence, np.random.Generator], Iterator[SceneQuestion]]
_TRIES = 12  # times per_type: random choices that are tried for a type


def candidate_questions(
    scene: SceneAnnotation,
    *,
    seed: int = 0,
    vocabulary: Sequence[str] = (),
    limits: Limits | None = None,
    types: Iterable[QuestionType] = tuple(QuestionType),
) -> list[SceneQuestion]:
    """Clear questions about a scene, at most ``limits.per_type`` of each type, in an order that the seed decides.

    Args:
        vocabulary: classes that a scene may have; questions about presence also ask about those that it does not have.

    Returns:
        Questions with the options in random order. A type for which the scene has no clear instance is absent.
    """
    evidence = Evidence(scene, limits or Limits())
    rng = np.random.default_rng((seed, zlib.crc32(scene.name.encode())))
    found = []
    for kind in types:
        if kind is QuestionType.PRESENCE:
            candidates = _presence(evidence, rng, vocabulary)
        else:
            candidates = _MAKERS[kind](evidence, rng)
        found += list(itertools.islice(candidates, evidence.limits.per_type))
    return found


def bin_of(kind: QuestionType, value: float) -> str:
    """The bin of a number, named by its upper end."""
    return next((f"<={end:g}" for end in BINS[kind] if value <= end), f">{BINS[kind][-1]:g}")


def with_options(question: SceneQuestion, right: str, wrong: Sequence[str], letter: int) -> SceneQuestion:
    """The question with ``right`` as option number ``letter`` (0: A) among the wrong ones, in their order."""
    options = list(wrong)
    options.insert(letter, right)
    return replace(question, options=tuple(options), truth=chr(ord("A") + letter))


def _number(
    evidence: Evidence, kind: QuestionType, value: float, text: str, objects: Sequence[SceneObject], **words: str
) -> SceneQuestion:
    return SceneQuestion(
        evidence.scene.name,
        kind,
        WORDING[kind].format(**words),
        (),
        text,
        bin_of(kind, value),
        tuple(words.values()),
        tuple(thing.id for thing in objects),
    )


def _choice(
    evidence: Evidence,
    rng: np.random.Generator,
    kind: QuestionType,
    right: str,
    wrong: Sequence[str],
    objects: Sequence[SceneObject],
    labels: Sequence[str],
    answer_bin: str,
    **words: str,
) -> SceneQuestion:
    bare = SceneQuestion(
        evidence.scene.name,
        kind,
        WORDING[kind].format(**words),
        (),
        "",
        answer_bin,
        tuple(labels),
        tuple(thing.id for thing in objects),
    )
    shuffled = [wrong[i] for i in rng.permutation(len(wrong))]
    return with_options(bare, right, shuffled, int(rng.integers(len(wrong) + 1)))


def _counts(evidence: Evidence, rng: np.random.Generator) -> Iterator[SceneQuestion]:
    labels = [label for label in evidence.by_label if evidence.whole_label_seen(label)]
    for i in rng.permutation(len(labels)):
        things = evidence.by_label[labels[i]]
        yield _number(evidence, QuestionType.COUNT, len(things), str(len(things)), things, a=labels[i])


def _distances(evidence: Evidence, rng: np.random.Generator) -> Iterator[SceneQuestion]:
    pairs = list(itertools.combinations(evidence.unique, 2))
    for i in rng.permutation(len(pairs)):
        a, b = pairs[i] if rng.random() < 0.5 else pairs[i][::-1]
        distance = evidence.distance_m(a, b)
        if distance >= 0.25:  # closer things touch or nearly do, and a relative error of their distance means nothing
            yield _number(evidence, QuestionType.DISTANCE, distance, f"{distance:.1f}", (a, b), a=a.label, b=b.label)


def _sizes(evidence: Evidence, rng: np.random.Generator) -> Iterator[SceneQuestion]:
    for i in rng.permutation(len(evidence.unique)):
        thing = evidence.unique[i]
        longest_cm = float(thing.box.size_m.max()) * 100.0
        yield _number(evidence, QuestionType.SIZE, longest_cm, str(round(longest_cm)), (thing,), a=thing.label)


def _room_size(evidence: Evidence, _: np.random.Generator) -> Iterator[SceneQuestion]:
    if evidence.scene.rooms and evidence.all_rooms_visited():
        area = sum(room.area_m2 for room in evidence.scene.rooms)
        yield _number(evidence, QuestionType.ROOM, area, f"{area:.1f}", ())


def _closest(evidence: Evidence, rng: np.random.Generator) -> Iterator[SceneQuestion]:
    things, limits = evidence.unique, evidence.limits
    if len(things) < 5:
        return
    for _ in range(_TRIES * limits.per_type):
        target, *others = (things[i] for i in rng.choice(len(things), 5, replace=False))
        others.sort(key=lambda thing: evidence.distance_m(target, thing))
        first, second = (evidence.distance_m(target, thing) for thing in others[:2])
        if second - first < max(limits.distance_margin_m, limits.distance_margin * second):
            continue
        labels = [thing.label for thing in others]
        made = _choice(
            *(evidence, rng, QuestionType.CLOSEST, labels[0], labels[1:], (target, *others), (target.label, labels[0])),
            "closest",
            a=target.label,
            options="{options}",
        )
        yield _listing_options(made)


def _listing_options(question: SceneQuestion) -> SceneQuestion:
    """The question with ``{options}`` in its text replaced by its options, in their order."""
    return replace(question, text=question.text.replace("{options}", ", ".join(question.options)))


def _directions(kind: QuestionType, name: Callable[[float], str], names: tuple[str, ...]) -> _Maker:
    borders = {
        QuestionType.DIRECTION_EASY: (0.0, 180.0),
        QuestionType.DIRECTION_MEDIUM: (0.0, 135.0),
        QuestionType.DIRECTION_HARD: (0.0, 90.0, 180.0),
    }[kind]

    def make(evidence: Evidence, rng: np.random.Generator) -> Iterator[SceneQuestion]:
        things, limits = evidence.unique, evidence.limits
        if len(things) < 3:
            return
        for _ in range(_TRIES * limits.per_type):
            a, b, c = (things[i] for i in rng.choice(len(things), 3, replace=False))
            at, facing, to = (thing.box.centre_m[:2] for thing in (a, b, c))
            if min(np.hypot(*(facing - at)), np.hypot(*(to - at)), np.hypot(*(to - facing))) < limits.apart_m:
                continue
            angle = turn_angle_deg(at, facing, to)
            if min(abs(abs(angle) - border) for border in borders) < limits.angle_margin_deg:
                continue
            # All corners of C must lie in the same direction as its centre.
            spread = [turn_angle_deg(at, facing, corner) for corner in c.box.footprint()]
            if any(name(angle) != name(other) for other in spread):
                continue
            right = name(angle)
            yield _choice(
                evidence,
                rng,
                kind,
                right,
                [other for other in names if other != right],
                (a, b, c),
                (a.label, b.label, c.label),
                right,
                a=a.label,
                b=b.label,
                c=c.label,
            )

    return make


def _routes(evidence: Evidence, rng: np.random.Generator) -> Iterator[SceneQuestion]:
    for route in route_candidates(evidence, rng, _TRIES * evidence.limits.per_type):
        start, facing, goal = route.start, route.facing, route.stops[-1]
        yield _choice(
            evidence,
            rng,
            QuestionType.ROUTE,
            route.answer,
            route.wrong_answers(rng),
            (start, facing, *route.stops),
            (start.label, facing.label, *(stop.label for stop in route.stops)),
            route.answer,
            a=start.label,
            b=facing.label,
            c=goal.label,
            steps=route.steps(),
        )


def _orders(evidence: Evidence, rng: np.random.Generator) -> Iterator[SceneQuestion]:
    first = evidence.appearances()
    labels = sorted(first)
    if len(labels) < 4:
        return
    for _ in range(_TRIES * evidence.limits.per_type):
        chosen = [labels[i] for i in rng.choice(len(labels), 4, replace=False)]
        order = sorted(chosen, key=lambda label: first[label])
        # Each must be seen well before anything of the next one is seen.
        if any(first[before][1] >= first[after][0] for before, after in itertools.pairwise(order)):
            continue
        # Wrong orders are drawn independently of the right one; otherwise the right one would be the most typical.
        wrong: list[str] = []
        while len(wrong) < 3:
            other = ", ".join(order[i] for i in rng.permutation(4))
            if other != ", ".join(order) and other not in wrong:
                wrong.append(other)
        yield _choice(
            *(evidence, rng, QuestionType.ORDER, ", ".join(order), wrong, (), order, "order"),
            options=", ".join(chosen),
        )


def _presence(evidence: Evidence, rng: np.random.Generator, vocabulary: Sequence[str]) -> Iterator[SceneQuestion]:
    there = [
        (label, "Yes") for label, things in evidence.by_label.items() if any(t.id in evidence.clear for t in things)
    ]
    absent = [(label, "No") for label in vocabulary if label not in evidence.by_label]
    count = min(len(there), len(absent), evidence.limits.per_type // 2)
    chosen = [pool[i] for pool in (there, absent) for i in rng.permutation(len(pool))[:count]]
    for i in rng.permutation(len(chosen)):
        label, answer = chosen[i]
        wrong = ["No" if answer == "Yes" else "Yes"]
        things = [thing for thing in evidence.by_label.get(label, []) if thing.id in evidence.clear]
        made = _choice(evidence, rng, QuestionType.PRESENCE, answer, wrong, things, (label,), answer, a=label)
        yield _with_article(made, label)


def _with_article(question: SceneQuestion, label: str) -> SceneQuestion:
    if label[0] not in "aeiou":
        return question
    return replace(question, text=question.text.replace(f" a {label}", f" an {label}"))


_MAKERS: dict[QuestionType, _Maker] = {
    QuestionType.COUNT: _counts,
    QuestionType.DISTANCE: _distances,
    QuestionType.SIZE: _sizes,
    QuestionType.ROOM: _room_size,
    QuestionType.CLOSEST: _closest,
    QuestionType.DIRECTION_EASY: _directions(QuestionType.DIRECTION_EASY, side_of, ("left", "right")),
    QuestionType.DIRECTION_MEDIUM: _directions(QuestionType.DIRECTION_MEDIUM, side_or_back, ("left", "right", "back")),
    QuestionType.DIRECTION_HARD: _directions(
        QuestionType.DIRECTION_HARD, quadrant, ("front-left", "front-right", "back-left", "back-right")
    ),
    QuestionType.ROUTE: _routes,
    QuestionType.ORDER: _orders,
}
