"""Options that several commands have."""

from __future__ import annotations

import argparse
from typing import TypeAlias

#: What ``add_commands`` of each module adds its commands to.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds ``--checkpoint``."""
    parser.add_argument("--checkpoint", default="", help="folder of the model (default: the bundled checkpoint)")


def add_model(parser: argparse.ArgumentParser, *, max_new_tokens: int) -> None:
    """Adds ``--checkpoint``, ``--device`` and ``--max-new-tokens``."""
    add_checkpoint(parser)
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="where the model runs (default auto)"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=max_new_tokens,
        help=f"most tokens of an answer (default {max_new_tokens})",
    )
