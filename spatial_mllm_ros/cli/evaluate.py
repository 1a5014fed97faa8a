"""The command that answers and scores published benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_commands(commands: Any) -> None:
    """Adds `evaluate`."""
    evaluate = commands.add_parser("evaluate", help="answer and score a published benchmark; goes on after a stop")
    evaluate.add_argument("layout", help="vsi-bench, spatial-mllm, revsi, vsi-super, scanqa or sqa3d")
    evaluate.add_argument("folder", type=Path, help="with the questions, named as they are published")
    evaluate.add_argument("--out", type=Path, required=True, help="folder for the answers and the report")
    evaluate.add_argument("--videos", type=Path, help="folder of the videos, where it is another one")
    evaluate.add_argument("--split", default="", help="full (default), debiased or pruned for VSI-Bench")
    evaluate.add_argument(
        "--scorer", action="append", default=[], metavar="NAME", help="may be repeated; 'all' for every one"
    )
    evaluate.add_argument("--checkpoint", default="", help="folder of the model; default: the small model in the box")
    evaluate.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    evaluate.add_argument("--frames", type=int, default=16, help="frames of a clip that the model sees (default 16)")
    evaluate.add_argument("--selection", default="uniform", choices=("uniform", "space-aware"))
    evaluate.add_argument("--candidates", type=int, default=128, help="frames for space-aware selection (default 128)")
    evaluate.add_argument("--prompt", default="checkpoint", choices=("checkpoint", "benchmark"), help="whose wording")
    evaluate.add_argument("--max-new-tokens", type=int, default=16, help="longest answer (default 16)")
    evaluate.add_argument("--batch-size", type=int, default=8, help="answers generated together (default 8)")
    evaluate.add_argument("--limit", type=int, default=0, help="only the first so many questions")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.evaluation.runner.clips import FrameChoice
    from spatial_mllm_ros.evaluation.runner.prompts import PromptStyle
    from spatial_mllm_ros.evaluation.runner.run import RunConfig, run

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
