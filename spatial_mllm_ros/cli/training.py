"""Commands that train models."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatial_mllm_ros.cli.options import Commands


def add_commands(commands: Commands) -> None:
    """Adds `train`."""
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
    new.add_argument(
        "--rooms",
        type=int,
        default=0,
        help="learn the tokenizer from questions about so many generated rooms too: fixed phrases become one token",
    )
    new.add_argument("--vocabulary", type=int, default=1024, help="tokens of the tokenizer (default 1024)")
    new.set_defaults(run=_train_new)
    for name, run, text in (
        ("geometry", _train_geometry, "train VGGT on depth and poses of recordings or generated rooms"),
        ("sft", _train_sft, "train Spatial-MLLM on questions and answers about videos or generated rooms"),
    ):
        # The options are the fields of the stage's configuration, which tyro reads: to argparse all words are the same.
        stage = stages.add_parser(name, help=text, add_help=False, prefix_chars="\0")
        stage.add_argument("options", nargs="*")
        stage.set_defaults(run=run)


def _train_new(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.models.small.architecture import write_new_checkpoint
    from spatial_mllm_ros.models.small.sizes import TINY_ROOMS
    from spatial_mllm_ros.models.small.tokenizer_training import spatial_question_corpus, text_lines, train_tokenizer
    from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion

    texts = [*spatial_question_corpus(), *text_lines(arguments.text)]
    words: tuple[str, ...] = ()
    if arguments.rooms:
        from spatial_mllm_ros.training.sft.rooms import VARYING_WORDS, room_texts

        texts += room_texts(arguments.rooms, Fusion.V1_1)
        words = VARYING_WORDS
    tokenizer = train_tokenizer(texts, vocabulary=arguments.vocabulary, words=words)
    write_new_checkpoint(arguments.out, TINY_ROOMS, tokenizer, licence="apache-2.0", seed=arguments.seed)
    print(f"{arguments.out} holds a new model; next: spatial_mllm train geometry, then spatial_mllm train sft.")
    return 0


def _train_geometry(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.training.command_line import config_from
    from spatial_mllm_ros.training.geometry.config import GeometryConfig

    config = config_from(arguments.options, GeometryConfig, prog="spatial_mllm train geometry")
    from spatial_mllm_ros.training.geometry.run import run_geometry  # imports torch, which --help must not wait for

    print(run_geometry(config))
    return 0


def _train_sft(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.training.command_line import config_from
    from spatial_mllm_ros.training.sft.config import SftConfig

    config = config_from(arguments.options, SftConfig, prog="spatial_mllm train sft")
    from spatial_mllm_ros.training.sft.run import run_sft  # imports torch, which --help must not wait for

    print(run_sft(config))
    return 0
