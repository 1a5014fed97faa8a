"""Parts that several pages have: the scores, the times to answer, and what made the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spatial_mllm_ros.provenance import versions
from spatial_mllm_ros.report.charts import ScoreBar, latency_chart, score_chart
from spatial_mllm_ros.report.page import ChartBlock, TableBlock, Tile


def random_weights_notice(model: Mapping[str, Any]) -> str:
    """What a reader must know first of a model with random weights; "" for any other model.

    Args:
        model: the fields of ``ModelIdentity``.
    """
    if not model["random_weights"]:
        return ""
    return "This model has random weights: its text means nothing, and neither do its scores."


def score_tile(label: str, figure: ScoreBar, detail: str = "") -> Tile:
    """One figure in percent with its interval, followed by ``detail``."""
    interval = f"95 %: {100 * figure.low:.1f} to {100 * figure.high:.1f}"
    return Tile(label, f"{100 * figure.value:.1f} %", f"{interval}, {detail}" if detail else interval)


def score_charts(tables: Sequence[TableBlock]) -> list[ChartBlock]:
    """A chart for each table that has figures."""
    return [
        ChartBlock(
            table.heading,
            score_chart(table.bars, name=f"scores-{number}"),
            f"{table.title}. Lines: 95 % intervals. In brackets: questions.",
        )
        for number, table in enumerate(tables)
        if table.bars
    ]


def latency_charts(seconds: Sequence[float]) -> list[ChartBlock]:
    """The chart of the times to answer; none where nothing was answered."""
    return [ChartBlock("Time to answer", latency_chart(seconds, name="latency"))] if seconds else []


def latency_tile(seconds: Sequence[float]) -> Tile:
    """Median and 95th percentile of the time to an answer."""
    ordered = sorted(seconds)
    if not ordered:
        return Tile("Time to answer", "-")
    middle, late = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return Tile("Time to answer", f"{middle:.2f} s", f"median; 95th percentile {late:.2f} s")


def facts_of(
    model: Mapping[str, Any], configuration: Mapping[str, Any], hashes: Sequence[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """What made a report, as (name, text).

    Args:
        model: the fields of ``ModelIdentity``.
        hashes: what was hashed, and its SHA-256.
    """
    return (
        ("model", f"{model['name']}, {model['architecture']}, licence of the weights: {model['licence']}"),
        *((f"{name} sha256", digest) for name, digest in hashes),
        ("configuration", json.dumps(configuration, sort_keys=True)),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
    )
