import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.training.config import GeometryConfig, SftConfig
from spatial_mllm_ros.training.config_cli import add_options, as_plain, changed_options, config_from, options_of


@dataclass(frozen=True)
class Inner:
    """Inside.

    Attributes:
        rate: how fast,
            in metres per second.
        names: of things.
    """

    rate: float = 0.5
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Required:
    """Must be said.

    Attributes:
        path: where.
        limit: at most.
    """

    path: Path
    limit: int | None = None


@dataclass(frozen=True)
class Outer:
    """All.

    Attributes:
        kind: which.
        fast: or slow.
    """

    where: Required
    inner: Inner = field(default_factory=Inner)
    kind: Literal["x", "y"] = "x"
    fast: bool = False


def parse(*words, kind=Outer):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, kind)
    return config_from(parser.parse_args(list(words)), kind)


def test_every_leaf_is_an_option_with_the_text_of_its_docstring():
    options = {option.name: option for option in options_of(Outer)}
    assert list(options) == ["where.path", "where.limit", "inner.rate", "inner.names", "kind", "fast"]
    assert options["inner.rate"].help == "how fast, in metres per second"
    assert options["inner.rate"].default == 0.5
    assert all(option.help for kind in (SftConfig, GeometryConfig) for option in options_of(kind))


def test_defaults_then_file_then_command_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("where: {path: /data, limit: 3}\ninner: {rate: 2, names: [b, c]}\nfast: true\n")
    found = parse("--config", str(file), "--inner.rate", "4", "--where.limit", "none", "--kind", "y")
    assert found == Outer(Required(Path("/data"), None), Inner(4.0, ("b", "c")), "y", True)
    assert parse("--where.path", "p", "--fast") == Outer(Required(Path("p")), fast=True)
    assert parse("--where.path", "p", "--inner.names", "q", "r").inner.names == ("q", "r")


def test_what_was_run_can_be_run_again_from_its_own_description(tmp_path):
    once = parse("--where.path", "p", "--inner.rate", "0.25", "--fast")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(as_plain(once)))
    assert parse("--config", str(file)) == once
    other = parse("--config", str(file), "--inner.rate", "0.5")
    assert changed_options(as_plain(once), as_plain(other)) == ["inner.rate"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), r"--where\.path must be given"),
        (("--where.path", "p", "--inner.rate", "quick"), r"--inner\.rate is 'quick'; expected a number"),
        (("--where.path", "p", "--where.limit", "1.5"), "expected a whole number or none"),
        (("--where.path", "p", "--kind", "z"), "one of 'x', 'y'"),
        (("--where.path", "p", "--fast", "perhaps"), "true or false"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(words, said):
    with pytest.raises(ConfigurationError, match=said):
        parse(*words)


def test_a_misspelled_key_of_the_file_is_named(tmp_path):
    (tmp_path / "run.yaml").write_text("where: {path: p, limt: 3}\n")
    with pytest.raises(ConfigurationError, match=r"where\.limt"):
        parse("--config", str(tmp_path / "run.yaml"))


def test_parts_and_ranges_of_the_real_stages_are_checked():
    words = ("--model.checkpoint", "c", "--data.files", "a.jsonl", "--run.out", "o")
    found = parse(*words, "--model.trained", "all", "--rates.language", "1e-4", kind=SftConfig)
    assert len(found.model.trained) == 5
    assert (found.rates.language, found.rates.connector, found.optimiser.weight_decay) == (1e-4, 2e-5, 0.1)
    with pytest.raises(ConfigurationError, match=r"RunConfig\.accumulate is 0"):
        parse(*words, "--run.accumulate", "0", kind=SftConfig)
