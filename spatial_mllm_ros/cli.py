"""`spatial_mllm <command>`: everything that needs no ROS graph, and the demo that starts one."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from spatial_mllm_ros.errors import SpatialMllmError

# Commands import what they need when they run: `--help` must not wait for torch.


def main(argv: list[str] | None = None) -> int:
    """Runs one command; the exit code is 0 on success, 1 on failure, 2 on wrong usage."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return arguments.run(arguments)
    except SpatialMllmError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spatial_mllm", description="Spatial perception for robots.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    verify = commands.add_parser("verify-reference", help="compare our models with reference outputs")
    verify.add_argument("dir", type=Path, help="folder laid out like the reference outputs")
    verify.add_argument("--json", type=Path, help="also write the table as JSON")
    verify.set_defaults(run=_verify_reference)

    replay = commands.add_parser("replay", help="answer questions about a recording, without a ROS graph")
    replay.add_argument("source", type=Path, help="RGB-D folder, folder of images, video file, or ROS 2 bag")
    replay.add_argument("--questions", type=Path, help="YAML list of: question, options, at, truth")
    replay.add_argument("--out", type=Path, required=True, help="folder for report.json and the picture")
    replay.add_argument(
        "--topic", action="append", default=[], metavar="NAME=TOPIC", help="topic of a bag, e.g. color=/camera/image"
    )
    replay.add_argument("--source-rate-hz", type=float, help="images per second of a folder of images (default 1)")
    _add_session_arguments(replay)
    replay.set_defaults(run=_replay)

    demo = commands.add_parser("demo", help="replay a recording into the running node through ROS, and ask it")
    demo.add_argument("source", type=Path, nargs="?", help="a recording as for replay; default: a synthetic clip")
    demo.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the picture and the report")
    demo.add_argument("--checkpoint", default="", help="folder of the model; default: the small model in the box")
    demo.set_defaults(run=_demo)

    benchmark = commands.add_parser("benchmark", help="measure this machine; one JSON row per figure")
    benchmark.add_argument("--json", type=Path, help="write the rows here as well")
    benchmark.add_argument("--recording", type=Path, help="RGB-D folder for the coverage figures")
    benchmark.add_argument("--only", choices=("selection", "node", "training"), help="measure only this part")
    benchmark.set_defaults(run=_benchmark)
    _add_training(commands)
    _add_checkpoints(commands)
    return parser


def _add_checkpoints(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fetch = commands.add_parser("fetch", help="download published weights: resumable, hashes checked")
    fetch.add_argument("name", nargs="?", help="a name from the list that comes without one, or OWNER/REPOSITORY")
    fetch.add_argument("--out", type=Path, help="folder (default: checkpoints/NAME)")
    fetch.add_argument("--revision", help="commit, branch or tag (default: the newest)")
    fetch.add_argument("--accept-licence", action="store_true", help="you have read the licence shown, and accept it")
    fetch.set_defaults(run=_fetch)

    inspect = commands.add_parser("inspect", help="say what a checkpoint folder holds and whether it would load")
    inspect.add_argument("dir", type=Path, help="folder with config.json and safetensors files")
    inspect.add_argument("--json", type=Path, help="also write it as JSON")
    inspect.set_defaults(run=_inspect)


def _add_training(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from spatial_mllm_ros.training.config import GeometryConfig, SftConfig
    from spatial_mllm_ros.training.config_cli import add_options

    train = commands.add_parser("train", help="train a model: new, geometry, sft")
    stages = train.add_subparsers(title="stages", required=True, metavar="STAGE")
    new = stages.add_parser("new", help="write a small model with fresh weights, to start from")
    new.add_argument("out", type=Path, help="folder of the checkpoint")
    new.add_argument("--seed", type=int, default=0, help="of all weights (default 0)")
    new.add_argument(
        "--text",
        type=Path,
        action="append",
        default=[],
        help="text or jsonl file for the tokenizer to learn from",
    )
    new.add_argument("--vocabulary", type=int, default=1024, help="tokens of the tokenizer (default 1024)")
    new.set_defaults(run=_train_new)
    geometry = stages.add_parser("geometry", help="train VGGT on recordings with depth and poses", allow_abbrev=False)
    add_options(geometry, GeometryConfig)
    geometry.set_defaults(run=_train_geometry)
    sft = stages.add_parser("sft", help="train Spatial-MLLM on questions and answers about videos", allow_abbrev=False)
    add_options(sft, SftConfig)
    sft.set_defaults(run=_train_sft)


def _add_session_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="", help="folder of the model; default: the small model in the box")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--frames", type=int, default=16, help="frames in the evidence set (default 16)")
    parser.add_argument(
        "--rate-hz", type=float, default=5.0, help="frames taken into the buffer per second (default 5)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer (default 64)")


def _verify_reference(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.evaluation.verify_reference import run

    return run(arguments.dir, arguments.json)


def _replay(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.answering.setup import SessionConfig
    from spatial_mllm_ros.evaluation.replay import run
    from spatial_mllm_ros.scene.config import SceneConfig

    config = SessionConfig(
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        max_new_tokens=arguments.max_new_tokens,
        scene=SceneConfig(selected_frames=arguments.frames, rate_hz=arguments.rate_hz),
    )
    return run(
        arguments.source,
        arguments.questions,
        arguments.out,
        config,
        topics=arguments.topic,
        source_rate_hz=arguments.source_rate_hz,
    )


def _demo(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.ros.demo import run

    return run(arguments.source, arguments.out, arguments.checkpoint)


def _fetch(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.models.fetch import PUBLISHED, fetch

    if arguments.name is None:
        for name, published in PUBLISHED.items():
            print(f"{name:26} {published.repository:42} {published.terms}")
        return 0
    fetched = fetch(
        arguments.name,
        arguments.out or Path("checkpoints") / arguments.name.replace("/", "--"),
        accept_licence=arguments.accept_licence,
        revision=arguments.revision,
    )
    print(
        f"{fetched.folder}: {len(fetched.sha256)} files of {fetched.repository} at {fetched.revision}, hashes checked."
    )
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from spatial_mllm_ros.models.inspection import inspect_checkpoint

    found = inspect_checkpoint(arguments.dir)
    print(found.in_words())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return 0 if found.loads else 1


def _train_new(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.models.small_architecture import TINY_ROOMS, write_new_checkpoint
    from spatial_mllm_ros.models.tokenizer_training import spatial_question_corpus, text_lines, train_tokenizer

    texts = (*spatial_question_corpus(), *text_lines(arguments.text))
    tokenizer = train_tokenizer(texts, vocabulary=arguments.vocabulary)
    write_new_checkpoint(arguments.out, TINY_ROOMS, tokenizer, licence="apache-2.0", seed=arguments.seed)
    print(f"{arguments.out} holds a new model; next: spatial_mllm train geometry, then spatial_mllm train sft.")
    return 0


def _train_geometry(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.training.config import GeometryConfig
    from spatial_mllm_ros.training.config_cli import config_from
    from spatial_mllm_ros.training.geometry import run_geometry

    print(run_geometry(config_from(arguments, GeometryConfig)))
    return 0


def _train_sft(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.training.config import SftConfig
    from spatial_mllm_ros.training.config_cli import config_from
    from spatial_mllm_ros.training.sft import run_sft

    print(run_sft(config_from(arguments, SftConfig)))
    return 0


def _benchmark(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.evaluation.benchmark import report, selection_rows

    rows = []
    if arguments.only in (None, "selection"):
        rows += selection_rows(arguments.recording)
    if arguments.only in (None, "node"):
        from spatial_mllm_ros.ros.benchmark import measure_image_callback

        rows += measure_image_callback()
    if arguments.only == "training":  # minutes long, so only where it is asked for
        from spatial_mllm_ros.training.benchmark import training_rows

        rows += training_rows()
    report(rows, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
