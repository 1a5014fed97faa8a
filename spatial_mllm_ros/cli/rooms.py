"""Commands about generated rooms."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatial_mllm_ros.cli.options import Commands


def add_commands(commands: Commands) -> None:
    """Adds `rooms`."""
    rooms = commands.add_parser("rooms", help="generated rooms: recordings, questions, a page that shows them")
    actions = rooms.add_subparsers(required=True, metavar="ACTION")
    write = actions.add_parser(
        "write", help="render rooms as ROS bags, RGB-D folders or videos, with scene and questions"
    )
    write.add_argument("--format", default="mcap", choices=("mcap", "sqlite3", "video", "rgbd"))
    write.add_argument("--frames", type=int, default=300, help="frames per recording (default 300)")
    write.add_argument("--rate-hz", type=float, default=15.0, help="frames per second (default 15)")
    write.add_argument("--size", default="640x480", metavar="WxH", help="image size in pixels (default 640x480)")
    write.add_argument("--perfect", action="store_true", help="no motion blur, no noise, no changing exposure")
    write.set_defaults(run=_rooms_write)
    questions = actions.add_parser(
        "questions", help="balanced questions as JSON lines, and what language-only baselines score"
    )
    questions.add_argument("--per-type", type=int, default=2, help="most questions per type and room (default 2)")
    questions.add_argument(
        "--frames", type=int, default=16, help="frames that must show what is asked about (default 16)"
    )
    questions.set_defaults(run=_rooms_questions)
    page = actions.add_parser("page", help="one HTML file with plans, frames and questions")
    page.set_defaults(run=_rooms_page)
    for action, worlds, out in ((write, 1, "a folder"), (questions, 100, "a .jsonl file"), (page, 6, "an .html file")):
        action.add_argument("--out", type=Path, required=True, help=out)
        action.add_argument("--split", default="val", choices=("train", "val", "test"))
        action.add_argument("--first", type=int, default=0, help="number of the first room in the split (default 0)")
        action.add_argument("--worlds", type=int, default=worlds, help=f"how many rooms (default {worlds})")


def _rooms_write(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.errors import ConfigurationError
    from spatial_mllm_ros.rooms.writers import RecordingConfig
    from spatial_mllm_ros.scoring.rooms.questions import run_write

    width, x, height = arguments.size.partition("x")
    if not (x and width.isdigit() and height.isdigit()):
        raise ConfigurationError(f"--size is {arguments.size!r}; write it like 640x480.")
    config = RecordingConfig(
        arguments.frames, arguments.rate_hz, int(width), int(height), realistic=not arguments.perfect
    )
    return run_write(arguments.out, arguments.split, arguments.first, arguments.worlds, arguments.format, config)


def _rooms_questions(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.scoring.rooms.questions import run_questions

    return run_questions(
        *(arguments.out, arguments.split, arguments.first, arguments.worlds, arguments.per_type, arguments.frames)
    )


def _rooms_page(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.scoring.rooms.questions import run_page

    return run_page(arguments.out, arguments.split, arguments.first, arguments.worlds)
