"""`spatial_mllm benchmark`: one row per figure, with the machine and the versions that made it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spatial_mllm_ros.benchmarks.selection import coverage_rows, incremental_rows, offline_rows
from spatial_mllm_ros.provenance import machine, versions
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.storage import write_json

Row = dict[str, Any]


def selection_rows(recording: Path | None) -> list[dict[str, Any]]:
    """Rows of the selection alone; the coverage figures need a recording with depth and poses.

    Raises:
        SourceError: the recording cannot be read.
    """
    rows = [*offline_rows(), *incremental_rows()]
    if recording is not None:
        with open_source(recording) as source:
            rows += coverage_rows(source, name=source.name)
    return rows


def report(rows: Sequence[dict[str, Any]], json_path: Path | None) -> None:
    """Prints ``rows`` (name, value, unit, aim, detail) as a table; writes them with machine and versions as JSON."""
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        aim = f"   aim {row['aim']}" if row["aim"] else ""
        sys.stdout.write(f"{row['name']:<{width}}  {row['value']:12.4g} {row['unit']}{aim}\n")
    if json_path is not None:
        write_json(json_path, {"machine": machine(), "versions": versions(), "rows": list(rows)})
