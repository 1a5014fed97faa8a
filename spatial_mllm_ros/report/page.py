"""A self-contained page: its content as data, and the template that makes it HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from spatial_mllm_ros.report.charts import ScoreBar
from spatial_mllm_ros.storage import write_text

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Tile:
    """One number at the top of the page."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class ChartBlock:
    """A chart with its heading, and the meaning of its colours."""

    title: str
    svg: str
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()  #: (class of the style sheet, words)

    @property
    def markup(self) -> Markup:
        """The SVG, which is not escaped because it comes from ``report.charts``."""
        return Markup(self.svg)


@dataclass(frozen=True)
class TableBlock:
    """A table of scores with the rule of the scorer; ``bars`` are its rows."""

    heading: str
    title: str
    bars: Sequence[ScoreBar]
    rule: str
    source: str
    absent: str = ""  #: metrics of the published scorer that this table does not have


@dataclass(frozen=True)
class PictureRef:
    """A small picture used on the page.

    Attributes:
        key: of ``Page.pictures``.
        label: what the picture shows.
        is_strip: several frames side by side in one wide picture.
    """

    key: str
    label: str
    is_strip: bool = False


@dataclass(frozen=True)
class QuestionRow:
    """One question of the table.

    Attributes:
        score: in [0, 1]; None where there is no truth or no answer.
        verdict: "right", "partly", "wrong", "no truth" or "no answer".
        details: (name, text) pairs that are shown when the row is opened.
    """

    number: str
    kind: str
    question: str
    options: tuple[str, ...]
    answer: str
    truth: str
    score: float | None
    verdict: str
    seconds: float | None
    evidence: tuple[PictureRef, ...] = ()
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """The content of a page.

    Attributes:
        notice: what a reader must know first, e.g. that the weights are random; "" for nothing.
        pictures: key -> data URI; a picture is in the file once, however often it is shown.
        facts: hashes, versions and configuration, as (name, text).
        problems: what was left out, with the reason.
    """

    title: str
    subtitle: str
    notice: str
    tiles: tuple[Tile, ...]
    tables: tuple[TableBlock, ...]
    charts: tuple[ChartBlock, ...]
    questions: tuple[QuestionRow, ...]
    pictures: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()


def verdict_of(score: float | None, *, answered: bool = True, has_truth: bool = True) -> str:
    """The word for a score."""
    if not answered:
        return "no answer"
    if score is None or not has_truth:
        return "no truth"
    return "right" if score >= 1.0 else ("partly" if score > 0 else "wrong")


def write_page(path: Path, page: Page) -> None:
    """Writes the page as one HTML file that loads nothing else.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML, with all text of questions and answers escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = sorted({row.kind for row in page.questions if row.kind})
    return environment.get_template("report.html.j2").render(page=page, kinds=kinds) + "\n"
