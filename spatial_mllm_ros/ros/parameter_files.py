"""Writes the files that follow from the declaration of the parameters.

``python -m spatial_mllm_ros.ros.parameter_files README.md``, run in the root of a checkout, writes
``config/spatial_mllm.yaml``, and in every Markdown file named the table between the two marks.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from spatial_mllm_ros.ros.parameters import PARAMETERS, Parameter, yaml_value

YAML_FILE = Path("config") / "spatial_mllm.yaml"
TABLE_BEGIN, TABLE_END = "<!-- parameters: begin -->", "<!-- parameters: end -->"
_WIDTH = 100


def yaml_text() -> str:
    """The parameter file: every parameter with its default, and above it what it means."""
    lines = [
        "# Parameters of the spatial node, with their defaults. All are read when the node is configured.",
        "# `ros2 param describe /spatial_node NAME` gives the range of each.",
        "# Written by `python -m spatial_mllm_ros.ros.parameter_files`: change spatial_mllm_ros/ros/parameters.py.",
        "/**:",
        "  ros__parameters:",
    ]
    group = ""
    for parameter in PARAMETERS:
        *groups, name = parameter.name.split(".")
        if groups and groups[0] != group:
            group = groups[0]
            lines += ["", f"    {group}:"]
        indent = "      " if groups else "    "
        lines += [f"{indent}# {line}" for line in textwrap.wrap(_explained(parameter), _WIDTH)]
        lines.append(f"{indent}{name}: {yaml_value(parameter.default)}")
    return "\n".join(lines) + "\n"


def markdown_table() -> str:
    """The table for readers, one parameter a row."""
    rows = ["| parameter | default | range | meaning |", "|---|---|---|---|"]
    for parameter in PARAMETERS:
        default = f"`{yaml_value(parameter.default)}`{_unit(parameter)}"
        rows.append(f"| `{parameter.name}` | {default} | {_range(parameter)} | {parameter.description} |")
    return "\n".join(rows) + "\n"


def with_table(markdown: str) -> str:
    """``markdown`` with the present table between the marks."""
    between = re.compile(f"(?<={re.escape(TABLE_BEGIN)}\n).*?(?={re.escape(TABLE_END)})", re.DOTALL)
    return between.sub(lambda _: markdown_table(), markdown)


def main(arguments: list[str]) -> None:
    """Writes the files."""
    YAML_FILE.write_text(yaml_text())
    for name in arguments:
        Path(name).write_text(with_table(Path(name).read_text()))


def _unit(parameter: Parameter) -> str:
    return f" {parameter.unit}" if parameter.unit else ""


def _range(parameter: Parameter) -> str:
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.bounds is None:
        return ""
    return f"{parameter.bounds[0]:.15g} to {parameter.bounds[1]:.15g}"


def _explained(parameter: Parameter) -> str:
    choices = f" One of: {', '.join(parameter.choices)}." if parameter.choices else ""
    return f"{parameter.description}{choices}"


if __name__ == "__main__":
    main(sys.argv[1:])
