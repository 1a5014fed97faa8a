"""Commands that answer and score questions: published benchmarks, and generated rooms."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_LAYOUTS = ("vsi-bench", "spatial-mllm", "revsi", "vsi-super", "scanqa", "sqa3d")


def add_commands(commands: Any) -> None:
    """Adds `evaluate`."""
    evaluate = commands.add_parser("evaluate", help="answer and score: a published benchmark, or generated rooms")
    kinds = evaluate.add_subparsers(title="what to evaluate on", required=True, metavar="BENCHMARK")
    for layout in _LAYOUTS:
        _add_benchmark(kinds.add_parser(layout, help=f"{layout}; goes on after a stop"), layout)
    _add_rooms(kinds.add_parser("rooms", help="questions about unseen generated rooms, with ablations and baselines"))

    card = kinds.add_parser("card", help="write the model card of a checkpoint from its evaluation and training runs")
    card.add_argument("checkpoint", type=Path, help="folder, with evaluation.json beside the weights")
    card.add_argument("--run", dest="runs", type=Path, action="append", default=[], help="folder of a run, in order")
    card.set_defaults(run=_write_card)


def _add_benchmark(benchmark: argparse.ArgumentParser, layout: str) -> None:
    benchmark.add_argument("folder", type=Path, help="with the questions, named as they are published")
    benchmark.add_argument("--out", type=Path, required=True, help="folder for the answers and the report")
    benchmark.add_argument("--videos", type=Path, help="folder of the videos, where it is another one")
    benchmark.add_argument("--split", default="", help="full (default), debiased or pruned for VSI-Bench")
    benchmark.add_argument(
        "--scorer", action="append", default=[], metavar="NAME", help="may be repeated; 'all' for every one"
    )
    _add_model(benchmark)
    benchmark.add_argument("--frames", type=int, default=16, help="frames of a clip that the model sees (default 16)")
    benchmark.add_argument("--selection", default="uniform", choices=("uniform", "space-aware"))
    benchmark.add_argument("--candidates", type=int, default=128, help="frames for space-aware selection (default 128)")
    benchmark.add_argument("--prompt", default="checkpoint", choices=("checkpoint", "benchmark"), help="whose wording")
    benchmark.add_argument("--batch-size", type=int, default=8, help="answers generated together (default 8)")
    benchmark.add_argument("--limit", type=int, default=0, help="only the first so many questions")
    benchmark.set_defaults(run=_evaluate, layout=layout)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="", help="folder of the model; default: the small model in the box")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--max-new-tokens", type=int, default=16, help="longest answer (default 16)")


def _add_rooms(rooms: argparse.ArgumentParser) -> None:
    _add_model(rooms)
    rooms.add_argument(
        "--visual-input",
        default="full",
        choices=("full", "true-points"),
        help="what the checkpoint itself is shown (default full; true-points for one that was trained so)",
    )
    rooms.add_argument("--split", default="test", choices=("train", "val", "test"))
    rooms.add_argument("--first", type=int, default=0, help="number of the first room in the split (default 0)")
    rooms.add_argument("--worlds", type=int, default=110, help="how many rooms (default 110: over 1,100 questions)")
    rooms.add_argument("--per-type", type=int, default=1, help="most questions per type and room (default 1)")
    rooms.add_argument("--frames", type=int, default=16, help="frames that all columns see (default 16)")
    rooms.add_argument(
        "--compare-frames",
        type=int,
        nargs="*",
        default=[8, 16, 32],
        help="numbers of frames to compare uniform and space-aware choice at (default 8 16 32; none: skip it)",
    )
    rooms.add_argument("--candidates", type=int, default=64, help="frames of a walk to choose from (default 64)")
    rooms.add_argument(
        "--size", default="", metavar="WxH", help="of the images; default: what the node makes of a 640x480 camera"
    )
    rooms.add_argument(
        "--camera",
        default="noisy",
        choices=("perfect", "noisy", "realistic"),
        help="noisy (default): noise and changing exposure, as in training; realistic: motion blur too",
    )
    rooms.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=DIR[:INPUT]",
        help="another checkpoint as a column; INPUT: full (default), no-spatial, true-points, no-vision, other-room",
    )
    rooms.add_argument(
        "--json", type=Path, metavar="FILE", help="report; evaluation.json beside the weights is its place"
    )
    rooms.add_argument("--answers", type=Path, metavar="FILE", help="every answer of every column, as JSON lines")
    rooms.set_defaults(run=_evaluate_rooms)


def _evaluate(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.scoring.runner.clips import FrameChoice
    from spatial_mllm_ros.scoring.runner.prompts import PromptStyle
    from spatial_mllm_ros.scoring.runner.run import RunConfig, run

    config = RunConfig(
        frames=arguments.frames,
        choice=FrameChoice(arguments.selection),
        candidates=arguments.candidates,
        prompt=PromptStyle(arguments.prompt),
        max_new_tokens=arguments.max_new_tokens,
    )
    return run(
        arguments.layout,
        arguments.folder,
        arguments.out,
        config,
        videos=arguments.videos,
        split=arguments.split,
        scorer_names=arguments.scorer,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        batch_size=arguments.batch_size,
        limit=arguments.limit,
    )


def _write_card(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.scoring.rooms.card import write_card

    print(write_card(arguments.checkpoint, arguments.runs))
    return 0


def _evaluate_rooms(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.scoring.rooms.command import run_rooms
    from spatial_mllm_ros.scoring.rooms.room_set import RoomSetConfig

    config = RoomSetConfig(
        split=arguments.split,
        first=arguments.first,
        worlds=arguments.worlds,
        per_type=arguments.per_type,
        frames=arguments.frames,
        compared_frames=tuple(arguments.compare_frames),
        candidates=arguments.candidates,
        camera=arguments.camera,
    )
    return run_rooms(
        arguments.checkpoint,
        config,
        visual_input=arguments.visual_input,
        size=arguments.size,
        also=arguments.also,
        device=arguments.device,
        max_new_tokens=arguments.max_new_tokens,
        json_path=arguments.json,
        answers_path=arguments.answers,
    )
