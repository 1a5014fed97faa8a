"""A scorer: the rule for one answer, and the figures with intervals over many answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spatial_mllm_ros.errors import SpatialMllmError


class UnscorableError(SpatialMllmError):
    """The published scorer itself fails on this question, so the question has no score.

    ``reference_error`` is the name of the exception that the published code raises.
    """

    code = "UNSCORABLE"

    def __init__(self, message: str, reference_error: str) -> None:
        super().__init__(message)
        self.reference_error = reference_error


class QuestionTypeError(UnscorableError):
    """The scorer does not know the type of the question."""

    code = "QUESTION_TYPE"

    def __init__(self, question_type: str, known: Sequence[str]) -> None:
        super().__init__(
            f"The question type {question_type!r} is not one of this scorer's: {', '.join(known)}.", "ValueError"
        )


@dataclass(frozen=True)
class ScoredQuestion:
    """One answered question with its score.

    Attributes:
        group: video or scene; the questions of a group are resampled together.
        truths: the accepted answers; benchmarks with one answer have one.
        score: in [0, 1] by the scorer's rule; None where the published scorer gives none (see UnscorableError).
    """

    question_type: str
    group: str
    prediction: str
    truths: tuple[str, ...]
    score: float | None


@dataclass(frozen=True)
class Figure:
    """One number of a score table.

    Attributes:
        value: a share in [0, 1] (CIDEr may exceed 1).
        low, high: its 95 % interval.
        questions: number of questions behind it.
        interval: the method of the interval, in words.
    """

    name: str
    value: float
    low: float
    high: float
    questions: int
    interval: str


#: (question type, prediction, accepted answers) -> score of one question; raises UnscorableError.
Rule = Callable[[str, str, tuple[str, ...]], float]


@dataclass(frozen=True)
class ScorerInfo:
    """The name, the rule and the source of a way of scoring.

    Attributes:
        name: e.g. "thinking-in-space"; unique within its benchmark.
        benchmark: e.g. "vsi-bench".
        rule: the rule in one sentence, for reports.
        source: the published code with the same results, and its commit; in words where there is no such code.
        absent: metrics of the benchmark that this scorer does not compute, with the reason.
    """

    name: str
    benchmark: str
    rule: str
    source: str
    absent: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Scorer(ScorerInfo):
    """A published way of scoring a benchmark.

    Attributes:
        score: see ``Rule``.
        figures: the summary over many questions, unscorable ones left out.
    """

    score: Rule
    figures: Callable[[Sequence[ScoredQuestion]], list[Figure]]
