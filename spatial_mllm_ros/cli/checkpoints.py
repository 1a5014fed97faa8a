"""Commands about weights: download and inspect them, and compare our models with reference outputs."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatial_mllm_ros.cli.options import Commands


def add_commands(commands: Commands) -> None:
    """Adds `verify-reference`, `fetch` and `inspect`."""
    verify = commands.add_parser("verify-reference", help="compare models and scorers with reference outputs")
    verify.add_argument("dir", type=Path, help="folder laid out like the reference outputs")
    verify.add_argument("--json", type=Path, help="also write the table as JSON")
    verify.set_defaults(run=_verify_reference)

    fetch = commands.add_parser("fetch", help="download published weights, resumable and with hashes checked")
    fetch.add_argument(
        "name", nargs="?", help="OWNER/REPOSITORY, or a name of the list that the command prints without NAME"
    )
    fetch.add_argument("--out", type=Path, help="folder (default: checkpoints/NAME)")
    fetch.add_argument("--revision", help="commit, branch or tag (default: the newest)")
    fetch.add_argument("--accept-licence", action="store_true", help="you have read the licence shown, and accept it")
    fetch.set_defaults(run=_fetch)

    inspect = commands.add_parser("inspect", help="what a checkpoint holds, and whether it loads")
    inspect.add_argument("dir", type=Path, help="folder with config.json and safetensors files")
    inspect.add_argument("--json", type=Path, help="also write it as JSON")
    inspect.set_defaults(run=_inspect)


def _verify_reference(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.verification.verify_reference import run

    return run(arguments.dir, arguments.json)


def _fetch(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.models.checkpoints.fetch import PUBLISHED, fetch

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
    from dataclasses import asdict

    from spatial_mllm_ros.models.checkpoints.inspection import inspect_checkpoint
    from spatial_mllm_ros.storage import write_json

    found = inspect_checkpoint(arguments.dir)
    print(found.in_words())
    if arguments.json is not None:
        write_json(arguments.json, asdict(found))
    return 0 if found.loads else 1
