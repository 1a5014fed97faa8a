"""What a scorer is: one rule for one answer, and one way to turn many scores into figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spatial_mllm_ros.errors import SpatialMllmError


class UnscorableError(SpatialMllmError):
    """The published scorer itself fails on this question, so there is no score to give.

    ``reference_error`` is the name of the exception that the published code raises.
    """

    code = "UNSCORABLE"

    def __init__(self, message: str, reference_error: str) -> None:
        super().__init__(message)
        self.reference_error = reference_error


class QuestionTypeError(UnscorableError):
    """The question is of a type that the scorer does not know."""

    code = "QUESTION_TYPE"

    def __init__(self, question_type: str, known: Sequence[str]) -> None:
        super().__init__(
            f"The question type {question_type!r} is not one of this scorer's: {', '.join(known)}.", "ValueError"
        )


@dataclass(frozen=True)
class ScoredQuestion:
    """One answered question with its score.

    Attributes:
        group: what belongs together when scores are resampled: the video or the scene.
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
        questions: how many questions it is over.
        interval: how the interval was made, in words.
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
    """What a reader must know of a way of scoring.

    Attributes:
        name: e.g. "thinking-in-space"; unique within its benchmark.
        benchmark: e.g. "vsi-bench".
        rule: the rule in one sentence, for reports.
        source: the published code that it equals, with its commit; or what it follows where there is none.
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
