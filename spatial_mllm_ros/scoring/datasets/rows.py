"""Rows of annotation files (JSON lines, JSON, Parquet); a broken row does not cost the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.scoring.datasets.question import Problem


@dataclass(frozen=True)
class Row:
    """One row, and where it stands in which file."""

    place: str
    values: Mapping[str, Any]


class RowError(Exception):
    """A row cannot become a question; ``read_benchmark`` makes a Problem of it. ``cause``: see Problem."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def read_rows(path: Path, *, key: str = "") -> Iterator[Row | Problem]:
    """The rows of ``path`` in order, a Problem in the place of each that cannot be read.

    Args:
        key: of the list of rows in a JSON object; "" where the file itself is the list.

    Raises:
        SourceError: the file cannot be read, or is no list of rows.
        ConfigurationError: the file is a Parquet file, and pyarrow is not installed.
    """
    try:
        if path.suffix == ".jsonl":
            yield from _json_lines(path)
        elif path.suffix == ".parquet":
            yield from _parquet(path)
        else:
            yield from _json_list(path, key)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error


def text_of(values: Mapping[str, Any], name: str) -> str:
    """A field as text; numbers become text as JSON writes them.

    Raises:
        RowError: the field is absent or empty.
    """
    value = values.get(name)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    raise RowError("missing_field", f"the field {name!r} is {'absent' if value is None else repr(value)}.")


def texts_of(values: Mapping[str, Any], name: str, *, required: bool = False) -> tuple[str, ...]:
    """A field that is a list of texts or numbers; () where it is absent or null and not ``required``.

    Raises:
        RowError: the field is no list, or it is required and absent or empty.
    """
    value = values.get(name)
    if value is None and not required:
        return ()
    if not isinstance(value, (list, tuple)) or (required and not value):
        raise RowError("missing_field", f"the field {name!r} is {value!r} and not a list of texts.")
    return tuple(str(item) for item in value)


def _json_lines(path: Path) -> Iterator[Row | Problem]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                place = f"{path.name}, line {number}"
                try:
                    yield _checked(place, json.loads(line.decode("utf-8")))
                except ValueError as error:
                    yield Problem(place, "broken_line", f"it is not JSON: {error}")


def _json_list(path: Path, key: str) -> Iterator[Row | Problem]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise SourceError(f"{path} is not JSON ({error}); fetch it again.") from error
    rows = content.get(key) if key and isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise SourceError(f"{path} holds no list of questions{f' under {key!r}' if key else ''}.")
    for number, values in enumerate(rows, 1):
        yield _checked(f"{path.name}, entry {number}", values)


def _parquet(path: Path) -> Iterator[Row | Problem]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigurationError(
            f"Reading {path.name} needs pyarrow; install it with: pip install 'spatial-mllm-ros[parquet]', or give the "
            "questions as JSON lines."
        ) from error
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise SourceError(f"{path} is not a readable Parquet file ({error}); fetch it again.") from error
    for number, values in enumerate(table.to_pylist(), 1):
        yield _checked(f"{path.name}, row {number}", values)


def _checked(place: str, values: Any) -> Row | Problem:
    if isinstance(values, dict):
        return Row(place, values)
    return Problem(place, "broken_line", f"it is {type(values).__name__} and not an object with fields.")
