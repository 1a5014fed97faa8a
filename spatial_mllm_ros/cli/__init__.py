"""`spatial_mllm <command>`: everything that needs no ROS graph, and the demo that starts one."""

from __future__ import annotations

import argparse
import logging
import sys

from spatial_mllm_ros.cli import benchmark, checkpoints, engines, evaluate, recordings, rooms, scenes, training
from spatial_mllm_ros.errors import SpatialMllmError, without_tools

_logger = logging.getLogger(__name__)

# Commands import what they need when they run: `--help` must not wait for torch.
_GROUPS = (recordings, evaluate, rooms, training, checkpoints, engines, scenes, benchmark)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; the exit code is 0 on success, 1 on failure, 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="spatial_mllm", description="Answers questions about what a camera has seen.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in _GROUPS:
        group.add_commands(commands)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return _run(arguments)
    except SpatialMllmError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    except Exception:
        _logger.exception("Unexpected error; please report it with the log.")
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    try:
        return int(arguments.run(arguments))
    except ModuleNotFoundError as error:
        raise without_tools(error) from error
