"""The command that measures this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_commands(commands: Any) -> None:
    """Adds `benchmark`."""
    benchmark = commands.add_parser("benchmark", help="measure this machine; one JSON row per figure")
    benchmark.add_argument("--json", type=Path, help="write the rows here as well")
    benchmark.add_argument("--recording", type=Path, help="RGB-D folder for the figures of coverage and storage")
    benchmark.add_argument("--only", choices=tuple(_PARTS), help="measure only this part (default: selection and node)")
    benchmark.add_argument(
        "--encoder-sizes",
        default="tiny,mid",
        help="models of the encoder part, of tiny, mid, full (default tiny,mid; full has 1.2 billion random weights)",
    )
    benchmark.set_defaults(run=_benchmark)


def _benchmark(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.evaluation.benchmark import report

    rows: list[dict[str, Any]] = []
    for part in (arguments.only,) if arguments.only else _DEFAULT_PARTS:
        rows += _PARTS[part](arguments)
    report(rows, arguments.json)
    return 0


def _selection(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from spatial_mllm_ros.evaluation.benchmark import selection_rows

    return selection_rows(arguments.recording)


def _node(_arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from spatial_mllm_ros.ros.benchmark import measure_image_callback

    return measure_image_callback()


def _rooms(_arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from spatial_mllm_ros.evaluation.benchmark_rooms import rooms_rows

    return rooms_rows()


def _training(_arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from spatial_mllm_ros.training.benchmark import training_rows

    return training_rows()


def _encoder(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from spatial_mllm_ros.evaluation.benchmark_encoder import encoder_rows

    return encoder_rows(arguments.encoder_sizes.split(","))


def _evaluation(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from spatial_mllm_ros.evaluation.benchmark_evaluation import evaluation_rows

    return evaluation_rows(arguments.recording)


def _storage(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from spatial_mllm_ros.datasets.sources import open_source
    from spatial_mllm_ros.errors import ConfigurationError
    from spatial_mllm_ros.evaluation.benchmark_storage import storage_rows

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
    "storage": _storage,
}
_DEFAULT_PARTS = ("selection", "node")  # minutes; the others are asked for one by one
