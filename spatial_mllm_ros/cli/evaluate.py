"""Commands that answer questions and score the answers: published benchmarks, and generated rooms."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatial_mllm_ros.cli.options import Commands, add_model

_LAYOUTS = ("vsi-bench", "spatial-mllm", "revsi", "vsi-super", "scanqa", "sqa3d")


def add_commands(commands: Commands) -> None:
    """Adds `evaluate`."""
    evaluate = commands.add_parser("evaluate", help="answer and score a published benchmark, or questions about rooms")
    kinds = evaluate.add_subparsers(title="what to evaluate on", required=True, metavar="BENCHMARK")
    for layout in _LAYOUTS:
        _add_benchmark(kinds.add_parser(layout, help=f"{layout}, continued where a run was stopped"), layout)
    _add_rooms(kinds.add_parser("rooms", help="unseen generated rooms, with baselines and ablations"))

    card = kinds.add_parser("card", help="write the model card of a checkpoint from its evaluation and training runs")
    card.add_argument("checkpoint", type=Path, help="folder of the weights, with evaluation.json in it")
    card.add_argument(
        "--run",
        dest="runs",
        type=Path,
        action="append",
        default=[],
        help="folder of a training run; repeat the option in the order of the runs",
    )
    card.set_defaults(run=_write_card)


def _add_benchmark(benchmark: argparse.ArgumentParser, layout: str) -> None:
    benchmark.add_argument("folder", type=Path, help="folder of the questions, with the published file names")
    benchmark.add_argument("--out", type=Path, required=True, help="folder for the answers and the report")
    benchmark.add_argument("--videos", type=Path, help="folder of the videos (default: the folder of the questions)")
    benchmark.add_argument("--split", default="", help="e.g. full (default), debiased or pruned of VSI-Bench")
    benchmark.add_argument(
        "--scorer", action="append", default=[], metavar="NAME", help="may be repeated; 'all': every scorer"
    )
    add_model(benchmark, max_new_tokens=16)
    benchmark.add_argument("--frames", type=int, default=16, help="frames of a clip that the model sees (default 16)")
    benchmark.add_argument("--selection", default="uniform", choices=("uniform", "space-aware"), help="of these frames")
    benchmark.add_argument("--candidates", type=int, default=128, help="frames for space-aware selection (default 128)")
    benchmark.add_argument("--prompt", default="checkpoint", choices=("checkpoint", "benchmark"), help="whose wording")
    benchmark.add_argument("--batch-size", type=int, default=8, help="answers generated together (default 8)")
    benchmark.add_argument("--limit", type=int, default=0, help="only the first so many questions")
    benchmark.set_defaults(run=_evaluate, layout=layout)


def _add_rooms(rooms: argparse.ArgumentParser) -> None:
    add_model(rooms, max_new_tokens=16)
    rooms.add_argument(
        "--visual-input",
        default="full",
        choices=("full", "true-points"),
        help="what the checkpoint is shown (default full; true-points: for one that was trained with them)",
    )
    rooms.add_argument("--split", default="test", choices=("train", "val", "test"))
    rooms.add_argument("--first", type=int, default=0, help="number of the first room in the split (default 0)")
    rooms.add_argument("--worlds", type=int, default=110, help="how many rooms (default 110: over 1,100 questions)")
    rooms.add_argument("--per-type", type=int, default=1, help="most questions per type and room (default 1)")
    rooms.add_argument(
        "--frames", type=int, default=16, help="frames that the checkpoint and its baselines see (default 16)"
    )
    rooms.add_argument(
        "--compare-frames",
        type=int,
        nargs="*",
        default=[8, 16, 32],
        help="numbers of frames at which uniform and space-aware choice are compared (default 8 16 32; empty: none)",
    )
    rooms.add_argument("--candidates", type=int, default=64, help="frames of a walk to choose from (default 64)")
    rooms.add_argument(
        "--size", default="", metavar="WxH", help="of the images (default: what the node makes of 640x480)"
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
        help="also evaluate another checkpoint; INPUT: full (default), no-spatial, true-points, no-vision, other-room",
    )
    rooms.add_argument(
        "--json", type=Path, metavar="FILE", help="write the report here, e.g. evaluation.json beside the weights"
    )
    rooms.add_argument("--answers", type=Path, metavar="FILE", help="write all answers here, as JSON lines")
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
