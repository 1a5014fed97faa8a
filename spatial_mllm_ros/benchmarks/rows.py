"""One figure of `spatial_mllm benchmark`, and all of them as a table and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_ros.provenance import machine, versions
from spatial_mllm_ros.storage import write_json


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        name: unique among all figures.
        value, unit: the figure; it may be given as any number.
        aim: what it should be, such as "<= 1.05"; "" where nothing is demanded.
        detail: how it was measured.
        series: points [x, y] of a curve that ends in the figure, for the plots.
    """

    name: str
    value: float
    unit: str
    aim: str = ""
    detail: str = ""
    series: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))

    def to_json(self) -> dict[str, Any]:
        """As an object of JSON, without ``series`` where there is none."""
        stated: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "series"}
        return {**stated, "series": [list(point) for point in self.series]} if self.series else stated


def report(rows: Sequence[Row], json_path: Path | None) -> None:
    """Prints ``rows`` as a table; writes them with machine and versions as JSON."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        aim = f"   aim {row.aim}" if row.aim else ""
        sys.stdout.write(f"{row.name:<{width}}  {row.value:12.4g} {row.unit}{aim}\n")
    if json_path is not None:
        content = {"machine": machine(), "versions": versions(), "rows": [row.to_json() for row in rows]}
        write_json(json_path, content)
