import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.training.command_line import config_from
from spatial_mllm_ros.training.config import OptimiserConfig, RunConfig
from spatial_mllm_ros.training.geometry.config import GeometryConfig
from spatial_mllm_ros.training.run import as_plain
from spatial_mllm_ros.training.sft.config import SftConfig


@dataclass(frozen=True)
class Model:
    """What is trained.

    Attributes:
        path: the checkpoint.
        limit: largest number.
    """

    path: Path
    limit: int | None = None


@dataclass(frozen=True)
class Data:
    """What it is trained on.

    Attributes:
        rate: how fast frames come,
            in frames per second.
        names: names of things.
    """

    rate: float = 0.5
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Outer:
    """A stage."""

    model: Model
    run: RunConfig
    data: Data = field(default_factory=Data)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    kind: Literal["x", "y"] = "x"


NEEDED = ("--model.path", "p", "--run.out", "o")


def parse(*words, kind=Outer):
    return config_from(words, kind, prog="train")


@pytest.mark.parametrize("kind", [SftConfig, GeometryConfig])
def test_help_says_of_every_option_what_it_is(kind, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--help", kind=kind)
    assert not stopped.value.code
    text = " ".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())
    assert "--config FILE" in text
    options = re.split(r"--(\w+\.[\w-]+) (?:[A-Z{]\S*|\[.+?\]\])? *", text)[1:]
    names, texts = options[::2], options[1::2]
    assert len(names) > 30
    assert not [name for name, said in zip(names, texts, strict=True) if said.strip().startswith("(")]


def test_defaults_then_file_then_command_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: {path: /data, limit: 3}\ndata: {rate: 2, names: [b, c]}\nrun: {out: o, resume: true, save_every: 7}\n"
    )
    found = parse("--config", str(file), "--data.rate", "4", "--model.limit", "None", "--kind", "y")
    run = RunConfig(Path("o"), resume=True, save_every=7)
    assert found == Outer(Model(Path("/data"), None), run, Data(4.0, ("b", "c")), kind="y")
    assert parse("--data.rate", "4", f"--config={file}").data.rate == 4.0
    assert not parse("--run.no-resume", "--config", str(file)).run.resume
    assert parse(*NEEDED) == Outer(Model(Path("p")), RunConfig(Path("o")))
    assert parse(*NEEDED, "--data.names", "q", "r").data.names == ("q", "r")
    assert parse(*NEEDED, "--data.names").data.names == ()


def test_what_was_run_can_be_run_again_from_its_own_description(tmp_path):
    once = parse(*NEEDED, "--data.rate", "0.25", "--run.resume", "--optimiser.muon-factor", "1e-7")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(as_plain(once)))
    assert parse("--config", str(file)) == once


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ("--model.path", "--run.out")),
        ((*NEEDED, "--data.rate", "quick"), ("--data.rate", "'quick'")),
        ((*NEEDED, "--model.limit", "1.5"), ("--model.limit", "'1.5'")),
        ((*NEEDED, "--kind", "z"), ("--kind", "'z'", "'x', 'y'")),
        ((*NEEDED, "--run.resume", "perhaps"), ("perhaps",)),
        ((*NEEDED, "--run.sede", "3"), ("--run.sede", "--run.seed")),
    ],
)
def test_a_wrong_option_or_value_is_named_with_what_is_expected(words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(*words)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert all(part in message for part in said), message


def test_a_misspelled_key_of_the_file_is_named_with_the_file(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("model: {path: p, limt: 3}\n")
    with pytest.raises(ConfigurationError, match=r"run\.yaml"):
        parse("--config", str(tmp_path / "run.yaml"), "--run.out", "o")
    assert "--model.limt" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("- a\n", "must hold a mapping")])
def test_a_file_that_is_no_configuration_is_named(content, said, tmp_path):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=rf"run\.yaml {said}"):
        parse("--config", str(path))
    with pytest.raises(ConfigurationError, match="--config names no file"):
        parse(*NEEDED, "--config")


def test_parts_and_ranges_of_the_real_stages_are_checked():
    words = ("--model.checkpoint", "c", "--data.files", "a.jsonl", "--run.out", "o")
    found = parse(*words, "--model.trained", "all", "--rates.language", "1e-4", kind=SftConfig)
    assert len(found.model.trained) == 5
    assert (found.rates.language, found.rates.connector, found.optimiser.weight_decay) == (1e-4, 2e-5, 0.1)
    with pytest.raises(ConfigurationError, match=r"RunConfig\.accumulate is 0"):
        parse(*words, "--run.accumulate", "0", kind=SftConfig)
