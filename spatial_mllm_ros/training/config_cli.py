"""Nested dataclasses as a command line: every field is an option, a YAML file may set any of them first."""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import reduce
from inspect import getdoc
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from spatial_mllm_ros.errors import ConfigurationError

ConfigT = TypeVar("ConfigT")
_SEPARATOR = "."
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")


@dataclass(frozen=True)
class Option:
    """One leaf of a configuration: ``run.seed`` of type int."""

    name: str
    kind: Any
    help: str
    default: Any

    @property
    def flag(self) -> str:
        """How it is spelled on the command line."""
        return "--" + self.name.replace("_", "-")

    def parsed(self, value: object) -> object:
        """A value from the command line (texts) or from YAML, in the option's type.

        Raises:
            ConfigurationError: naming the option, the value and what is expected.
        """
        try:
            return _parsed(value, self.kind)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{self.flag} is {value!r}; expected {_in_words(self.kind)}.") from error


def options_of(kind: type) -> Iterator[Option]:
    """All leaves of a dataclass type, in the order of its fields; help texts come from the docstrings' attributes."""
    yield from _options(kind, "", None)


def _options(kind: type, prefix: str, instance: object) -> Iterator[Option]:
    hints, texts = get_type_hints(kind), _attribute_texts(kind)
    for field in fields(kind):
        name, inner = prefix + field.name, hints[field.name]
        if instance is not None:
            default = getattr(instance, field.name)
        else:
            default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(inner):
            yield from _options(hints[field.name], name + _SEPARATOR, None if default is MISSING else default)
        else:
            yield Option(name, inner, texts.get(field.name, ""), default)


def add_options(parser: argparse.ArgumentParser, kind: type) -> None:
    """Adds ``--config FILE`` and one option per leaf of ``kind``; ``config_from`` makes the dataclass of the result."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with any of these options, nested")
    groups: dict[str, Any] = {}
    for option in options_of(kind):
        group = option.name.rpartition(_SEPARATOR)[0] or "options"
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        nargs = "*" if get_origin(option.kind) is tuple else "?" if option.kind is bool else None
        shown = "" if option.default in (MISSING, None, ()) else f" (default {_shown(option.default)})"
        groups[group].add_argument(
            option.flag,
            dest=option.name,
            default=None,
            nargs=nargs,
            const="true" if nargs == "?" else None,
            metavar=option.name.rpartition(_SEPARATOR)[2].upper(),
            help=(option.help + shown).replace("%", "%%"),
        )


def config_from(arguments: argparse.Namespace, kind: type[ConfigT]) -> ConfigT:
    """The dataclass that the options give: defaults, then the YAML file, then the command line.

    Raises:
        ConfigurationError: an unknown key in the file, a value of a wrong type, a required option that nobody set, or
            what the dataclass itself refuses.
    """
    options = {option.name: option for option in options_of(kind)}
    values: dict[str, object] = {}
    if arguments.config is not None:
        for name, value in _flat(_read_yaml(arguments.config), "").items():
            if name not in options:
                raise ConfigurationError(
                    f"{arguments.config} sets {name!r}, which is no option; known are {', '.join(options)}."
                )
            values[name] = options[name].parsed(value)
    for name, option in options.items():
        given = getattr(arguments, name, None)
        if given is not None:
            values[name] = option.parsed(given)
    missing = [option.flag for name, option in options.items() if option.default is MISSING and name not in values]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} must be given, on the command line or in the file of --config.")
    return _built(kind, values, "")


def as_plain(config: object) -> dict[str, Any]:
    """A configuration as nested dictionaries of plain values, which YAML and JSON can hold."""
    plain: dict[str, Any] = _plain(asdict(config))  # type: ignore[call-overload]
    return plain


def changed_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names of the leaves in which two results of ``as_plain`` differ."""
    a, b = _flat(old, ""), _flat(new, "")
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


def _built(kind: type[ConfigT], values: Mapping[str, object], prefix: str) -> ConfigT:
    hints, inner = get_type_hints(kind), {}
    for field in fields(kind):  # type: ignore[arg-type]
        name, hint = prefix + field.name, hints[field.name]
        below = name + _SEPARATOR
        if not is_dataclass(hint):
            if name in values:
                inner[field.name] = values[name]
        elif field.default_factory is MISSING:
            inner[field.name] = _built(hint, values, below)  # type: ignore[arg-type]
        else:
            own = {key.removeprefix(below): value for key, value in values.items() if key.startswith(below)}
            inner[field.name] = _replaced(field.default_factory(), own)
    return kind(**inner)


def _replaced(instance: Any, values: Mapping[str, object]) -> Any:
    direct: dict[str, object] = {key: value for key, value in values.items() if _SEPARATOR not in key}
    for group in {key.partition(_SEPARATOR)[0] for key in values if _SEPARATOR in key}:
        start = group + _SEPARATOR
        own = {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
        direct[group] = _replaced(getattr(instance, group), own)
    return replace(instance, **direct) if direct else instance


def _parsed(value: object, kind: Any) -> object:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        return None if value in (None, "", "none") else _parsed(value, inner[0])
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError(value)
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            value = [value]
        return tuple(_parsed(item, get_args(kind)[0]) for item in value)
    if kind is bool:
        word = str(value).lower()
        if word not in (*_TRUE, *_FALSE):
            raise ValueError(value)
        return word in _TRUE
    if kind in (str, Path):
        if not isinstance(value, str | Path):
            raise TypeError(value)
        return kind(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(value)
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return kind(value)


def _in_words(kind: Any) -> str:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if part is type(None) else _in_words(part) for part in get_args(kind))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if origin is tuple:
        return f"a list of {_in_words(get_args(kind)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}.get(kind, "a text")


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The configuration file {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"The configuration file {path} must hold a mapping of options.")
    return content


def _flat(nested: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    parts = (
        _flat(value, f"{prefix}{key}{_SEPARATOR}") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        for key, value in nested.items()
    )
    return reduce(lambda all_, part: {**all_, **part}, parts, {})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _attribute_texts(kind: type) -> dict[str, str]:
    """Field -> text, from the section "Attributes:" of the docstring."""
    _, _, section = (getdoc(kind) or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if entry := _ENTRY.match(line):
            names = entry.group(1).split(", ")
            texts.update(dict.fromkeys(names, entry.group(2)))
        elif line.startswith("        "):
            texts.update({name: f"{texts[name]} {line.strip()}" for name in names})
        elif line.strip():
            break
    return {name: text.rstrip(".").replace("``", "") for name, text in texts.items()}
