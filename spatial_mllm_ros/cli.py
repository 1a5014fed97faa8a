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
    replay.add_argument("source", type=Path, nargs="+", help="RGB-D folders, folders of images, videos or ROS 2 bags")
    replay.add_argument(
        "--questions",
        type=Path,
        action="append",
        default=[],
        help="YAML list of: question, options, at, truth, tolerance, type; one file for all, or one for each",
    )
    replay.add_argument("--out", type=Path, required=True, help="folder for report.html, report.json and the picture")
    replay.add_argument(
        "--topic", action="append", default=[], metavar="NAME=TOPIC", help="topic of a bag, e.g. color=/camera/image"
    )
    replay.add_argument("--source-rate-hz", type=float, help="images per second of a folder of images (default 1)")
    replay.add_argument(
        "--ros", action="store_true", help="ask the same questions through the live node too, and write ros_diff.json"
    )
    replay.add_argument("--rerun", type=Path, metavar="FILE", help="also write a recording for the Rerun viewer (.rrd)")
    _add_session_arguments(replay)
    replay.set_defaults(run=_replay)

    demo = commands.add_parser("demo", help="replay a recording into the running node through ROS, and ask it")
    demo.add_argument(
        "source", type=Path, nargs="?", help="a recording as for replay; default: a walk through a generated room"
    )
    demo.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the picture and the report")
    demo.add_argument("--checkpoint", default="", help="folder of the model; default: the small model in the box")
    demo.set_defaults(run=_demo)

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

    benchmark = commands.add_parser("benchmark", help="measure this machine; one JSON row per figure")
    benchmark.add_argument("--json", type=Path, help="write the rows here as well")
    benchmark.add_argument("--recording", type=Path, help="RGB-D folder for the coverage figures")
    benchmark.add_argument(
        "--only", choices=("selection", "node", "rooms", "evaluation"), help="measure only this part"
    )
    benchmark.set_defaults(run=_benchmark)

    _add_rooms(commands)
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
    from spatial_mllm_ros.evaluation.replay import folder_of, replay_all, tell
    from spatial_mllm_ros.scene.config import SceneConfig

    config = SessionConfig(
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        max_new_tokens=arguments.max_new_tokens,
        scene=SceneConfig(selected_frames=arguments.frames, rate_hz=arguments.rate_hz),
    )
    reports = replay_all(
        arguments.source,
        arguments.questions,
        arguments.out,
        config,
        topics=arguments.topic,
        source_rate_hz=arguments.source_rate_hz,
    )
    tell(reports, frames=arguments.frames, out_dir=arguments.out)
    if arguments.rerun:
        from spatial_mllm_ros.evaluation.rerun_export import write_rerun

        for number, report in enumerate(reports, 1):
            stem = arguments.rerun.stem if len(reports) == 1 else f"{arguments.rerun.stem}_{number:02d}"
            write_rerun(arguments.rerun.with_name(f"{stem}.rrd"), report)
    if arguments.ros:
        from spatial_mllm_ros.ros.live_replay import ask_live

        for number, (source, report) in enumerate(zip(arguments.source, reports, strict=True)):
            folder = folder_of(arguments.out, number, report.source_name, len(reports))
            written = ask_live(
                source, report, folder, config, topics=arguments.topic, source_rate_hz=arguments.source_rate_hz
            )
            print(f"Asked through the live node: {written}")
    return 0


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


def _benchmark(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.evaluation.benchmark import report, selection_rows

    rows = []
    if arguments.only in (None, "selection"):
        rows += selection_rows(arguments.recording)
    if arguments.only in (None, "node"):
        from spatial_mllm_ros.ros.benchmark import measure_image_callback

        rows += measure_image_callback()
    if arguments.only in (None, "evaluation"):
        from spatial_mllm_ros.evaluation.benchmark_evaluation import evaluation_rows

        rows += evaluation_rows(arguments.recording)
    if arguments.only in (None, "rooms"):
        from spatial_mllm_ros.evaluation.benchmark_rooms import rooms_rows

        rows += rooms_rows()
    report(rows, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
