"""Charts as SVG inside a page: matplotlib draws them, and the style sheet of the page gives their colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SELECTED, UNIFORM, PATH = "#0072b2", "#e69f00", "#333333"  #: colours of selected and uniform frames, and of the walk
_WIDTH_IN = 5.4  # narrow: on a phone the text of a wide chart would be too small to read
# Each colour is a placeholder for a variable of the style sheet, because matplotlib only knows fixed colours.
INK, MUTED, LINE, ACCENT = "#010203", "#040506", "#070809", "#0a0b0c"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    PATH: "var(--ink)",
    SELECTED: "var(--selected)",
    UNIFORM: "var(--uniform)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": LINE,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


class ScoreBar(Protocol):
    """One bar: a share in [0, 1] over ``questions`` questions, with its 95 % interval and the method behind it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def value(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def questions(self) -> int: ...  # noqa: D102
    @property
    def interval(self) -> str: ...  # noqa: D102


def score_chart(figures: Sequence[ScoreBar], *, name: str) -> str:
    """Bars in percent with their 95 % intervals; the number of questions is in brackets after each name."""

    def draw(axes: Axes) -> None:
        rows = np.arange(len(figures))[::-1]
        values = np.array([100 * f.value for f in figures])
        low, high = (np.array([100 * getattr(f, end) for f in figures]) for end in ("low", "high"))
        axes.barh(rows, values, height=0.62, color=ACCENT, alpha=0.85)
        errors = np.maximum(0.0, [values - low, high - values])
        axes.errorbar(values, rows, xerr=errors, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)
        axes.set_yticks(rows, [f"{f.name.replace('_', ' ')}  ({f.questions})" for f in figures], color=INK)
        axes.set_xlim(0, max(100.0, float(high.max()) * 1.02))
        axes.set_xlabel("percent")
        axes.set_ylim(-0.6, len(figures) - 0.4)
        axes.xaxis.grid(True, lw=0.6)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)

    return svg_of(draw, name, height_in=0.75 + 0.27 * len(figures))


def latency_chart(seconds: Sequence[float], *, name: str) -> str:
    """A histogram of the times to answer, with median and 95th percentile."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    def draw(axes: Axes) -> None:
        values = np.asarray(seconds, dtype=float)
        spread = values.max() > 20 * max(values.min(), 1e-4)
        if spread:
            bins = np.geomspace(max(values.min(), 1e-4), values.max() * 1.001, 24)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            bins = np.linspace(values.min() * 0.98, values.max() * 1.02 + 1e-6, 24)
        axes.hist(values, bins=bins.tolist(), color=ACCENT, alpha=0.85)
        for share, style in ((50, "-"), (95, (0, (4, 2)))):
            at = float(np.percentile(values, share))
            axes.axvline(at, color=INK, lw=1.1, ls=style, label=f"p{share} {at:.2g} s")
        axes.set_xlabel("seconds from question to answer")
        axes.set_ylabel("questions")
        axes.yaxis.grid(True, lw=0.6)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=9)

    return svg_of(draw, name, height_in=2.7)


def svg_of(draw: Callable[[Axes], None], name: str, *, height_in: float) -> str:
    """The chart that ``draw`` draws, as an <svg> element with the colours, the font and the width of the page."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=(_WIDTH_IN, height_in), layout="constrained", dpi=170)
        draw(canvas.add_subplot())
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Names of groups are the same in every chart, and nothing refers to them.
    text = re.sub(r' id="[a-zA-Z0-9]+(?:_[a-zA-Z0-9]+)*_\d+"', "", text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', _opening_tag, text, count=1, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text


def _opening_tag(match: re.Match[str]) -> str:
    return (
        '<svg class="chart" aria-hidden="true" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{match[1]}">'
    )
