"""Commands about exported models and built engines."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatial_mllm_ros.cli.options import Commands, add_checkpoint


def add_commands(commands: Commands) -> None:
    """Adds `engine`."""
    engine = commands.add_parser(
        "engine", help="the spatial encoder in ONNX Runtime and TensorRT: export, build, check"
    )
    actions = engine.add_subparsers(title="actions", required=True, metavar="ACTION")

    export = actions.add_parser("export", help="write ONNX models of the spatial encoder, compared with torch")
    export.add_argument("plan", type=Path, help="profiles to export, e.g. engines/cpu.yaml")
    add_checkpoint(export)
    export.add_argument("--out", type=Path, help="folder for the exports (default: the user's cache folder)")
    export.set_defaults(run=_engine_export)

    build = actions.add_parser("build", help="build TensorRT engines of exports for this GPU")
    build.add_argument(
        "exports", type=Path, nargs="*", help="folders of exports (default: all in the user's cache folder)"
    )
    build.set_defaults(run=_engine_build)

    for name, text in (("list", "show exports and engines of this user"), ("verify", "the same, and check all hashes")):
        show = actions.add_parser(name, help=text)
        show.set_defaults(run=_engine_show, verify=name == "verify")

    prune = actions.add_parser("prune", help="remove engines that this machine can no longer use")
    prune.add_argument("--all", action="store_true", help="remove all engines")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    prune.set_defaults(run=_engine_prune)
    for action in (build, *(actions.choices[name] for name in ("list", "verify", "prune"))):
        action.add_argument("--cache", type=Path, help="folder of engines (default: the user's cache folder)")

    budget = actions.add_parser("budget", help="operations and memory by number of frames, computed and not measured")
    budget.set_defaults(run=lambda _arguments: _engine_budget())


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
