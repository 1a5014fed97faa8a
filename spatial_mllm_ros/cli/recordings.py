"""Commands that play recordings: through the session, or through ROS into the running node."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_commands(commands: Any) -> None:
    """Adds `replay` and `demo`."""
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


def _add_session_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="", help="folder of the model; default: the small model in the box")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--frames", type=int, default=16, help="frames in the evidence set (default 16)")
    parser.add_argument(
        "--rate-hz", type=float, default=5.0, help="frames taken into the buffer per second (default 5)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer (default 64)")


def _replay(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.answering.setup import SessionConfig
    from spatial_mllm_ros.replay.replay import folder_of, replay_all, tell
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
        from spatial_mllm_ros.replay.rerun_export import write_rerun

        for number, report in enumerate(reports, 1):
            stem = arguments.rerun.stem if len(reports) == 1 else f"{arguments.rerun.stem}_{number:02d}"
            write_rerun(arguments.rerun.with_name(f"{stem}.rrd"), report)
    if arguments.ros:
        from spatial_mllm_ros.playback.live_replay import ask_live

        for number, (source, report) in enumerate(zip(arguments.source, reports, strict=True)):
            folder = folder_of(arguments.out, number, report.source_name, len(reports))
            written = ask_live(
                source, report, folder, config, topics=arguments.topic, source_rate_hz=arguments.source_rate_hz
            )
            print(f"Asked through the live node: {written}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.playback.demo import run

    return run(arguments.source, arguments.out, arguments.checkpoint)
