"""`spatial_mllm <command>`: everything that needs no ROS graph, and the demo that starts one."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

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
    demo.add_argument(
        "source", type=Path, nargs="?", help="a recording as for replay; default: a walk through a generated room"
    )
    demo.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the picture and the report")
    demo.add_argument("--checkpoint", default="", help="folder of the model; default: the small model in the box")
    demo.set_defaults(run=_demo)

    benchmark = commands.add_parser("benchmark", help="measure this machine; one JSON row per figure")
    benchmark.add_argument("--json", type=Path, help="write the rows here as well")
    benchmark.add_argument("--recording", type=Path, help="RGB-D folder for the coverage figures")
    benchmark.add_argument("--only", choices=("selection", "node", "rooms", "encoder"), help="measure only this part")
    benchmark.add_argument(
        "--encoder-sizes",
        default="tiny,mid",
        help="models of the encoder part, of tiny, mid, full (default tiny,mid; full has 1.2 billion random weights)",
    )
    benchmark.set_defaults(run=_benchmark)

    _add_rooms(commands)
    _add_engine_commands(commands)
    return parser


def _add_rooms(commands: Any) -> None:
    rooms = commands.add_parser("rooms", help="generated rooms: recordings, questions, a page to look at")
    actions = rooms.add_subparsers(required=True, metavar="ACTION")
    write = actions.add_parser("write", help="render worlds as ROS bags, RGB-D folders or videos, with scene files")
    write.add_argument("--format", default="mcap", choices=("mcap", "sqlite3", "video", "rgbd"))
    write.add_argument("--frames", type=int, default=300, help="frames per recording (default 300)")
    write.add_argument("--rate-hz", type=float, default=15.0, help="frames per second (default 15)")
    write.add_argument("--size", default="640x480", metavar="WxH", help="image size in pixels (default 640x480)")
    write.add_argument("--perfect", action="store_true", help="no motion blur, noise and changing exposure")
    write.set_defaults(run=_rooms_write)
    questions = actions.add_parser("questions", help="balanced questions as JSON lines, and what guessing scores")
    questions.add_argument("--per-type", type=int, default=2, help="most questions per type and world (default 2)")
    questions.add_argument("--frames", type=int, default=16, help="frames that the answers must be in (default 16)")
    questions.set_defaults(run=_rooms_questions)
    page = actions.add_parser("page", help="one HTML file with plans, frames and questions")
    page.set_defaults(run=_rooms_page)
    for action, worlds, out in ((write, 1, "a folder"), (questions, 100, "a .jsonl file"), (page, 6, "an .html file")):
        action.add_argument("--out", type=Path, required=True, help=out)
        action.add_argument("--split", default="val", choices=("train", "val", "test"))
        action.add_argument("--first", type=int, default=0, help="number of the first world in the split (default 0)")
        action.add_argument("--worlds", type=int, default=worlds, help=f"how many worlds (default {worlds})")


def _add_engine_commands(commands: Any) -> None:
    engine = commands.add_parser("engine", help="the spatial encoder in other runtimes: export, build, check")
    actions = engine.add_subparsers(title="actions", required=True, metavar="ACTION")

    export = actions.add_parser("export", help="write ONNX models of the spatial encoder, compared with torch")
    export.add_argument("plan", type=Path, help="profiles to export, e.g. engines/cpu.yaml")
    export.add_argument("--checkpoint", default="", help="folder of the model; default: the small model in the box")
    export.add_argument("--out", type=Path, help="folder for the exports; default: the user's cache folder")
    export.set_defaults(run=_engine_export)

    build = actions.add_parser("build", help="build TensorRT engines of exports for this GPU")
    build.add_argument("exports", type=Path, nargs="*", help="folders of exports; default: all in the user's cache")
    build.set_defaults(run=_engine_build)

    for name, text in (("list", "exports and engines of this user"), ("verify", "the same, comparing every byte")):
        show = actions.add_parser(name, help=text)
        show.set_defaults(run=_engine_show, verify=name == "verify")

    prune = actions.add_parser("prune", help="remove engines that are of no use on this machine any more")
    prune.add_argument("--all", action="store_true", help="remove all engines")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    prune.set_defaults(run=_engine_prune)
    for action in (build, *(actions.choices[name] for name in ("list", "verify", "prune"))):
        action.add_argument("--cache", type=Path, help="folder of engines; default: the user's cache folder")

    budget = actions.add_parser("budget", help="operations and memory per number of frames; computed, not measured")
    budget.set_defaults(run=lambda _arguments: _engine_budget())


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


def _rooms_write(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.datasets.rooms.writers import RecordingConfig
    from spatial_mllm_ros.errors import ConfigurationError
    from spatial_mllm_ros.evaluation.rooms_questions import run_write

    width, x, height = arguments.size.partition("x")
    if not (x and width.isdigit() and height.isdigit()):
        raise ConfigurationError(f"--size is {arguments.size!r}; write it like 640x480.")
    config = RecordingConfig(
        arguments.frames, arguments.rate_hz, int(width), int(height), realistic=not arguments.perfect
    )
    return run_write(arguments.out, arguments.split, arguments.first, arguments.worlds, arguments.format, config)


def _rooms_questions(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.evaluation.rooms_questions import run_questions

    return run_questions(
        *(arguments.out, arguments.split, arguments.first, arguments.worlds, arguments.per_type, arguments.frames)
    )


def _rooms_page(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.evaluation.rooms_questions import run_page

    return run_page(arguments.out, arguments.split, arguments.first, arguments.worlds)


def _engine_export(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.engines import commands

    return commands.export(arguments.checkpoint, commands.ExportPlan.read(arguments.plan), arguments.out)


def _engine_build(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.engines import commands

    return commands.build(arguments.exports, arguments.cache)


def _engine_show(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.engines import commands

    return commands.show(arguments.cache, verify=arguments.verify)


def _engine_prune(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.engines import commands

    return commands.prune(arguments.cache, everything=arguments.all, dry_run=arguments.dry_run)


def _engine_budget() -> int:
    from spatial_mllm_ros.engines import commands

    return commands.budget()


def _benchmark(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.evaluation.benchmark import report, selection_rows

    rows = []
    if arguments.only in (None, "selection"):
        rows += selection_rows(arguments.recording)
    if arguments.only in (None, "node"):
        from spatial_mllm_ros.ros.benchmark import measure_image_callback

        rows += measure_image_callback()
    if arguments.only in (None, "rooms"):
        from spatial_mllm_ros.evaluation.benchmark_rooms import rooms_rows

        rows += rooms_rows()
    if arguments.only in (None, "encoder"):
        from spatial_mllm_ros.evaluation.benchmark_encoder import encoder_rows

        rows += encoder_rows(arguments.encoder_sizes.split(","))
    report(rows, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
