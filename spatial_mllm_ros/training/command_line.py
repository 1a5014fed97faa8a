"""The command line of a stage: tyro makes it of the stage's dataclass, and a YAML file may set options first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from spatial_mllm_ros.errors import ConfigurationError

ConfigT = TypeVar("ConfigT")
_FILE = "--config"


def config_from(words: Sequence[str], kind: type[ConfigT], *, prog: str) -> ConfigT:
    """The configuration that the words of a command line set.

    ``--config FILE`` may stand anywhere among them. The YAML file holds options, grouped as in the dataclass; the other
    words replace them.

    Args:
        prog: the command, for messages.

    Raises:
        ConfigurationError: tyro is not installed, the file cannot be read, or the dataclass refuses a value.
        SystemExit: after ``--help``, or after tyro has printed which option is missing, unknown or wrong.
    """
    try:
        import tyro
    except ImportError as error:
        raise ConfigurationError(
            "Training needs the package tyro; install it with: pip install 'spatial-mllm-ros[train]'"
        ) from error
    file, rest = _without_file(words)
    content = _read_yaml(file) if file is not None else {}
    try:
        return tyro.cli(
            kind,
            args=[*_words(content, "--"), *rest],
            prog=prog,
            description=f"{kind.__doc__}\n\n{_FILE} FILE reads a YAML file with any of these options, grouped as\n"
            "here; options on the command line replace those of the file.",
        )
    except SystemExit as stop:
        if stop.code and file is not None:
            raise ConfigurationError(
                f"The options are those of {file}, then those of the command line; correct the one named above."
            ) from stop
        raise


def _without_file(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Splits ``--config FILE`` or ``--config=FILE`` from the other words."""
    file, rest, left = None, [], iter(words)
    for word in left:
        name, _, value = word.partition("=")
        if name != _FILE:
            rest.append(word)
        elif path := value or next(left, ""):
            file = Path(path)
        else:
            raise ConfigurationError(f"{_FILE} names no file; write {_FILE} FILE.")
    return file, rest


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The configuration file {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"The configuration file {path} must hold a mapping of options.")
    return content


def _words(options: Mapping[str, Any], start: str) -> Iterator[str]:
    """Nested options as the words of a command line."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _words(value, f"{start}{name}.")
        elif isinstance(value, bool):
            yield f"{start}{name}" if value else f"{start}no-{name}"
        else:
            yield f"{start}{name}"
            yield from map(str, value if isinstance(value, list) else [value])
