import subprocess
import sys

import pytest

from spatial_mllm_ros import cli
from spatial_mllm_ros.errors import SourceError


class Failing:
    """A group with one command, which raises what it is given."""

    def __init__(self, error):
        self._error = error

    def add_commands(self, commands):
        commands.add_parser("fail").set_defaults(run=self._run)

    def _run(self, _arguments):
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SourceError("The bag is damaged."), 1, "SOURCE: The bag is damaged."),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_an_error_that_an_operator_can_act_on_is_one_line(monkeypatch, capsys, error, code, said):
    monkeypatch.setattr(cli, "_GROUPS", (Failing(error),))
    assert cli.main(["fail"]) == code
    assert capsys.readouterr().err == f"{said}\n"


def test_an_unexpected_error_is_to_be_reported_with_the_log(monkeypatch, caplog):
    monkeypatch.setattr(cli, "_GROUPS", (Failing(ZeroDivisionError("division by zero")),))
    assert cli.main(["fail"]) == 1
    assert "Unexpected error; please report it with the log." in caplog.text
    assert "ZeroDivisionError: division by zero" in caplog.text


@pytest.mark.parametrize("command", ["replay", "demo", "evaluate", "rooms", "engine", "benchmark", "inspect"])
def test_every_command_has_a_help_text_and_loads_neither_models_nor_ros_for_it(command):
    script = (
        "import sys\nfrom spatial_mllm_ros.cli import main\n"
        f"try:\n    main([{command!r}, '--help'])\n"
        "except SystemExit:\n    print([m for m in ('torch', 'transformers', 'rclpy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.startswith(f"usage: spatial_mllm {command}")
    assert shown.rstrip().endswith("[]")
