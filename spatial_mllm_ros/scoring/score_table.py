"""Score tables: figures with their scorer, split, model, frames and number of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spatial_mllm_ros.report.page import TableBlock
from spatial_mllm_ros.scoring.datasets.question import BenchmarkQuestion
from spatial_mllm_ros.scoring.scorers.base import Figure, ScoredQuestion, Scorer, ScorerInfo, UnscorableError


@dataclass(frozen=True)
class ScoreTable:
    """All figures of one scorer over one run.

    Attributes:
        frames: the frames that the model saw, in words, e.g. "16 uniform frames".
        questions: number of questions of the split.
        answered: number of questions with an answer; only these count in the figures.
        unscorable: number of answered questions for which the published scorer gives no score.
    """

    scorer: ScorerInfo
    split: str
    model: str
    frames: str
    questions: int
    answered: int
    unscorable: int
    figures: tuple[Figure, ...]

    @property
    def title(self) -> str:
        """The conditions under which every figure of the table holds."""
        rest = f", {self.questions - self.answered} not answered" if self.answered < self.questions else ""
        odd = f", {self.unscorable} without a score" if self.unscorable else ""
        return (
            f"{self.scorer.benchmark}, split {self.split}, scorer {self.scorer.name}, {self.model}, {self.frames}, "
            f"{self.answered} of {self.questions} questions{rest}{odd}"
        )

    def lines(self) -> list[str]:
        """The table as text, in percent; CIDEr too is printed times 100, as usual."""
        width = max((len(figure.name) for figure in self.figures), default=0)
        rows = [
            f"  {f.name:<{width}}  {100 * f.value:6.2f}  [{100 * f.low:6.2f}, {100 * f.high:6.2f}]  n = {f.questions}"
            f"  ({f.interval})"
            for f in self.figures
        ]
        return [self.title, *rows, *([f"  {self.scorer.absent}"] if self.scorer.absent else [])]

    def block(self) -> TableBlock:
        """The table for a report page."""
        scorer = self.scorer
        return TableBlock(
            f"Scores by {scorer.name}", self.title, self.figures, scorer.rule, scorer.source, scorer.absent
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; shares between 0 and 1."""
        return {
            "benchmark": self.scorer.benchmark,
            "scorer": self.scorer.name,
            "rule": self.scorer.rule,
            "source": self.scorer.source,
            "absent": self.scorer.absent,
            "split": self.split,
            "model": self.model,
            "frames": self.frames,
            "questions": self.questions,
            "answered": self.answered,
            "unscorable": self.unscorable,
            "figures": [asdict(figure) for figure in self.figures],
        }


def score_answers(
    scorer: Scorer,
    questions: Sequence[BenchmarkQuestion],
    predictions: Mapping[str, str],
    *,
    split: str,
    model: str,
    frames: str,
) -> ScoreTable:
    """Scores the predictions (by question id); questions without a prediction are counted and left out."""
    scored = [
        scored_question(scorer, question, predictions[question.id])
        for question in questions
        if question.id in predictions
    ]
    return ScoreTable(
        scorer=scorer,
        split=split,
        model=model,
        frames=frames,
        questions=len(questions),
        answered=len(scored),
        unscorable=sum(item.score is None for item in scored),
        figures=tuple(scorer.figures(scored)),
    )


def scored_question(scorer: Scorer, question: BenchmarkQuestion, prediction: str) -> ScoredQuestion:
    """One answer with its score; the score is None where the published scorer gives none."""
    try:
        score: float | None = scorer.score(question.question_type, prediction, question.truths)
    except UnscorableError:
        score = None
    return ScoredQuestion(question.question_type, question.scene, prediction, question.truths, score)
