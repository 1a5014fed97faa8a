"""The files under config/ that training is started with say things that their readers understand."""

from pathlib import Path

import pytest

from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm
from spatial_mllm_ros.training.command_line import config_from
from spatial_mllm_ros.training.sft.config import SftConfig

CONFIG = Path(__file__).parents[2] / "config"


def test_the_published_recipe_is_a_valid_configuration():
    words = ["--config", str(CONFIG / "sft_published.yaml"), "--model.checkpoint", "c", "--run.out", "o"]
    found = config_from([*words, "--data.files", "d.jsonl"], SftConfig, prog="train sft")
    assert (found.rates.language, found.rates.connector, found.rates.merger) == (7e-6, 2e-5, 2e-5)
    assert (found.optimiser.weight_decay, found.optimiser.warm_up, found.run.accumulate) == (0.1, 0.03, 8)
    assert found.model.trained == ("connector", "merger", "language")


@pytest.mark.parametrize(
    ("name", "kind"), [("accelerate_deepspeed_zero3.yaml", "DEEPSPEED"), ("accelerate_fsdp.yaml", "FSDP")]
)
def test_accelerate_reads_its_configurations(name, kind):
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    loaded = config_args.load_config_from_file(str(CONFIG / name))
    assert loaded.distributed_type == kind
    assert loaded.mixed_precision == "bf16"


def test_fsdp_wraps_layers_that_the_model_has(start):
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    loaded = config_args.load_config_from_file(str(CONFIG / "accelerate_fsdp.yaml"))
    wrapped = set(loaded.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(","))
    assert wrapped <= {type(module).__name__ for module in load_spatial_mllm(start).model.modules()}
