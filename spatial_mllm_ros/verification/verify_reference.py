"""Compares every implementation with the outputs of the published reference: ``spatial_mllm verify-reference``."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.provenance import versions
from spatial_mllm_ros.storage import write_json
from spatial_mllm_ros.verification.checks import Check

Family = Callable[[Path], Iterator[Check]]


def all_families() -> dict[str, Family]:
    """The families of checks by name. Their modules import torch, so they are imported here."""
    from spatial_mllm_ros.verification import manifests, metrics, preprocess, sampling, spatial_mllm, vggt

    return {
        module.__name__.rpartition(".")[2]: module.checks
        for module in (vggt, spatial_mllm, preprocess, sampling, manifests, metrics)
    }


def verify_reference(root: Path, families: dict[str, Family] | None = None) -> list[Check]:
    """Compares everything that can be compared with the files under ``root``.

    Args:
        root: a folder of reference outputs; families whose files it does not hold add nothing.
        families: the families to compare, by name; None for all.

    Returns:
        one row per quantity. Where a family fails with an exception, the rows it made and one failed row that names
        the exception.
    """
    rows: list[Check] = []
    for name, checks in (all_families() if families is None else families).items():
        case = name
        try:
            for check in checks(root):
                rows.append(check)
                case = check.case
        except Exception as error:  # noqa: BLE001 - any failure of a family becomes a row of the table
            problem = (
                f"after this case: {type(error).__name__}: {error}"
                if case != name
                else f"{type(error).__name__}: {error}"
            )
            rows.append(Check(case, problem, math.inf, math.inf, "exception", 0.0, False))
    return rows


def run(root: Path, json_path: Path | None = None, *, families: dict[str, Family] | None = None) -> int:
    """Prints the table, writes the report, and says how it ended.

    Args:
        root: a folder of reference outputs.
        json_path: where to write the rows and the versions of what computed them; None writes nothing.
        families: see ``verify_reference``.

    Returns:
        0 if all is within tolerance, 1 if something is not, 2 if there was nothing to compare.

    Raises:
        ConfigurationError: the report cannot be written there.
    """
    if json_path is not None and not json_path.resolve().parent.is_dir():
        raise ConfigurationError(f"The report cannot be written to {json_path}: its folder does not exist. Create it.")
    rows = verify_reference(root, families)
    failed = sum(not row.passed for row in rows)
    if rows:
        sys.stdout.write(table(rows))
        sys.stdout.write(f"{len(rows) - failed} of {len(rows)} checks passed.\n")
    else:
        sys.stdout.write(f"No reference case was found in {root}; give the folder that holds e.g. vggt_tiny/.\n")
    if json_path is not None:
        write_json(json_path, _report(root, rows))
    if not rows:
        return 2
    return 1 if failed else 0


def table(rows: Sequence[Check]) -> str:
    """The rows in aligned columns, with a header."""
    header = ("case", "quantity", "max abs error", "rel. L2", "tolerance", "pass")
    cells = [
        (
            row.case,
            row.quantity,
            f"{row.max_abs:.2e}",
            f"{row.rel_l2:.2e}",
            f"{row.criterion} {row.tolerance:g}",
            "yes" if row.passed else "NO",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (header, *cells)
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _report(root: Path, rows: Sequence[Check]) -> dict[str, object]:
    def finite(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "root": root.name,
        "passed": bool(rows) and all(row.passed for row in rows),
        "versions": versions(),
        "checks": [{key: finite(value) for key, value in asdict(row).items()} for row in rows],
    }
