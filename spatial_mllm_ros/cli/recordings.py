"""Commands that play recordings: into a session in this process, or through ROS into the running node."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatial_mllm_ros.cli.options import Commands, add_checkpoint, add_model


def add_commands(commands: Commands) -> None:
    """Adds `replay` and `demo`."""
    replay = commands.add_parser("replay", help="answer questions about recordings, without ROS")
    replay.add_argument("source", type=Path, nargs="+", help="RGB-D folders, folders of images, videos or ROS 2 bags")
    replay.add_argument(
        "--questions",
        type=Path,
        action="append",
        default=[],
        help="YAML list with question, options, at, truth, tolerance, type; one file for all, or one for each",
    )
    replay.add_argument("--out", type=Path, required=True, help="folder for report.html, report.json and the picture")
    replay.add_argument(
        "--topic", action="append", default=[], metavar="NAME=TOPIC", help="topic of a bag, e.g. color=/camera/image"
    )
    replay.add_argument("--source-rate-hz", type=float, help="images per second of a folder of images (default 1)")
    replay.add_argument(
        "--ros", action="store_true", help="also ask the running node the same questions, and write ros_diff.json"
    )
    replay.add_argument("--rerun", type=Path, metavar="FILE", help="also write a recording for the Rerun viewer (.rrd)")
    replay.add_argument(
        "--screenshot", type=Path, metavar="PNG", help="also write a picture of report.html (needs Chromium)"
    )
    add_model(replay, max_new_tokens=64)
    replay.add_argument("--frames", type=int, default=16, help="most frames of an evidence set (default 16)")
    replay.add_argument("--rate-hz", type=float, default=5.0, help="frames per second that the scene takes (default 5)")
    replay.set_defaults(run=_replay)

    demo = commands.add_parser("demo", help="play a recording into the running node, and ask the node")
    demo.add_argument(
        "source", type=Path, nargs="?", help="a recording as for replay (default: a walk through a generated room)"
    )
    demo.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the picture and the report")
    add_checkpoint(demo)
    demo.set_defaults(run=_demo)


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
    if arguments.screenshot:
        from spatial_mllm_ros.replay.replay import PAGE_FILE
        from spatial_mllm_ros.report.browser import write_screenshot

        write_screenshot(arguments.out / PAGE_FILE, arguments.screenshot)
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
