"""The command that measures the live system on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from spatial_mllm_ros.cli.options import Commands
from spatial_mllm_ros.errors import ConfigurationError

if TYPE_CHECKING:
    from spatial_mllm_ros.benchmarks.rows import Row


def add_commands(commands: Commands) -> None:
    """Adds `benchmark`."""
    benchmark = commands.add_parser("benchmark", help="measure the live system on this machine")
    benchmark.add_argument(
        "parts",
        nargs="*",
        type=_part,
        metavar="PART",
        help=f"what to measure, of {', '.join(_PARTS)} (default: {' and '.join(_DEFAULT_PARTS)})",
    )
    benchmark.add_argument("--json", type=Path, help="also write the figures here, with machine and versions")
    benchmark.add_argument("--recording", type=Path, help="recording for the figures that need real frames")
    benchmark.add_argument(
        "--plot", type=Path, metavar="SVG", help="draw the part here: stream, memory, windows or query"
    )
    benchmark.add_argument("--frames", type=int, default=10_000, help="frames of the part stream (default 10000)")
    benchmark.add_argument(
        "--query-sizes",
        default="tiny,mid",
        help="models of the part query, of tiny, mid, full (default tiny,mid; full has 5.3 billion random weights)",
    )
    benchmark.add_argument("--checkpoint", type=Path, help="measure this model in the part query instead")
    benchmark.add_argument(
        "--encoder-sizes",
        default="tiny,mid",
        help="models of the part encoder, of tiny, mid, full (default tiny,mid; full has 1.2 billion random weights)",
    )
    benchmark.set_defaults(run=_benchmark)


def _part(name: str) -> str:
    # argparse's choices refuse an empty list before Python 3.12.
    if name not in _PARTS:
        raise argparse.ArgumentTypeError(f"unknown part {name!r}; there are {', '.join(_PARTS)}")
    return name


def _benchmark(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.benchmarks.rows import report

    parts = arguments.parts or _DEFAULT_PARTS
    drawn = [part for part in parts if part in _PLOTS]
    if arguments.plot is not None and len(drawn) != 1:
        raise ConfigurationError(f"--plot draws one part; name one of {', '.join(_PLOTS)} with it.")
    rows: list[Row] = []
    for part in parts:
        rows += _PARTS[part](arguments)
    report(rows, arguments.json)
    if arguments.plot is not None:
        _PLOTS[drawn[0]](rows, arguments.plot)
    return 0


def _selection(arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.selection import selection_rows

    return selection_rows(arguments.recording)


def _node(_arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.node import measure_image_callback

    return measure_image_callback()


def _rooms(_arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.rooms import rooms_rows

    return rooms_rows()


def _training(_arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.training import training_rows

    return training_rows()


def _encoder(arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.encoder import encoder_rows

    return encoder_rows(arguments.encoder_sizes.split(","))


def _evaluation(arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.evaluation import evaluation_rows

    return evaluation_rows(arguments.recording)


def _stream(arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.stream import stream_rows

    return stream_rows(arguments.recording, frames=arguments.frames)


def _memory(arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.memory import memory_rows

    return memory_rows(arguments.recording)


def _query(arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.query import query_rows

    return query_rows(arguments.query_sizes.split(","), arguments.checkpoint)


def _draw_query(rows: list[Row], path: Path) -> None:
    from spatial_mllm_ros.benchmarks.plots import draw_query

    draw_query(rows, path)


def _windows(arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.windows import window_rows

    return window_rows(arguments.recording)


def _draw_windows(rows: list[Row], path: Path) -> None:
    from spatial_mllm_ros.benchmarks.windows import draw_windows

    draw_windows(rows, path)


def _draw_stream(rows: list[Row], path: Path) -> None:
    from spatial_mllm_ros.benchmarks.plots import draw_stream

    draw_stream(rows, path)


def _storage(arguments: argparse.Namespace) -> list[Row]:
    from spatial_mllm_ros.benchmarks.storage import storage_rows
    from spatial_mllm_ros.recordings.sources import open_source

    if arguments.recording is None:
        raise ConfigurationError("The storage part saves what a recording shows; give one with --recording.")
    with open_source(arguments.recording) as source:
        return storage_rows(source, name=source.name)


_PARTS = {
    "selection": _selection,
    "node": _node,
    "rooms": _rooms,
    "encoder": _encoder,
    "evaluation": _evaluation,
    "training": _training,
    "stream": _stream,
    "memory": _memory,
    "windows": _windows,
    "query": _query,
    "storage": _storage,
}
_PLOTS = {"stream": _draw_stream, "memory": _draw_stream, "windows": _draw_windows, "query": _draw_query}
_DEFAULT_PARTS = ("selection", "node")  # these take minutes; the other parts are asked for by name
