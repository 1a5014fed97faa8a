from dataclasses import replace

import pytest
import torch
from torch import nn

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.training import loop
from spatial_mllm_ros.training.config import OptimiserConfig
from spatial_mllm_ros.training.geometry.run import run_geometry
from spatial_mllm_ros.training.optimiser import make_optimisers, parameter_groups, set_rates

from .geometry.test_run import Scenes, config, rows

MUON = OptimiserConfig(matrices="muon", muon_factor=4.0, weight_decay=0.0, warm_up=0.0)


def parameters():
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "blocks.0.attn.qkv.weight": (24, 8),
        "blocks.0.attn.qkv.bias": (24,),
        "patch_embed.proj.weight": (8, 3, 14, 14),
        "language_model.embed_tokens.weight": (40, 8),
        "connector.mlp.0.weight": (32, 32),
        "camera_token": (1, 2, 1, 8),
        "token_head.names.weight": (12, 8),
    }
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def groups(named, rate=1e-2, decay=0.0):
    return parameter_groups((("spatial", name, value) for name, value in named.items()), {"spatial": rate}, decay)


def names_of(optimiser, named):
    own = {id(value): name for name, value in named.items()}
    return {own[id(value)] for group in optimiser.param_groups for value in group["params"]}


def test_muon_steps_matrices_between_layers_and_adamw_all_others_once():
    named = parameters()
    adamw, muon = make_optimisers(groups(named), MUON)
    assert names_of(muon, named) == {"blocks.0.attn.qkv.weight"}
    assert names_of(adamw, named) == set(named) - {"blocks.0.attn.qkv.weight"}
    (alone,) = make_optimisers(groups(named), OptimiserConfig())
    assert names_of(alone, named) == set(named)


def test_muon_moves_every_direction_of_a_matrix_alike_and_adamw_does_not():
    spread = {}
    for kind in (MUON, replace(MUON, matrices="adamw")):
        named = {name: value for name, value in parameters().items() if "qkv.weight" in name}
        (weight,) = named.values()
        before = weight.detach().clone()
        # one direction is far steeper than the others
        steep = torch.outer(torch.arange(24.0) - 7, torch.arange(8.0) - 2)
        (optimiser,) = make_optimisers(groups(named), kind)
        weight.grad = steep + torch.randn(24, 8, generator=torch.Generator().manual_seed(5))
        optimiser.step()
        values = torch.linalg.svdvals(weight.detach() - before)
        spread[kind.matrices] = float(values[0] / values[-1])
    assert spread["muon"] < 3
    assert spread["adamw"] > 6


def test_rates_of_matrices_are_larger_by_the_factor_at_every_step():
    optimisers = make_optimisers(groups(parameters(), rate=2e-3), MUON)
    set_rates(optimisers, 0.5)
    adamw, muon = optimisers
    assert {group["lr"] for group in adamw.param_groups} == {1e-3}
    assert [group["lr"] for group in muon.param_groups] == [pytest.approx(4e-3)]


def test_a_run_with_muon_broken_off_and_resumed_is_the_same_run(start, scene_batch, tmp_path):
    def run(out, resume=False, crash_at=None):
        settings = config(start, out, resume=resume, steps=6)
        model = replace(settings.model, learning_rate=1e-3)
        run_geometry(replace(settings, model=model, optimiser=MUON), lambda *_: Scenes(scene_batch, crash_at))

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(broken, crash_at=2 * 4)
    assert len(rows(broken)) == 4
    run(broken, resume=True)
    one, other = ([(row["loss"], row["gradient_norm"]) for row in rows(out)] for out in (whole, broken))
    assert one == other
    assert one[-1][0] < one[0][0]


def test_muon_is_refused_where_processes_hold_parts_of_matrices(start, scene_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "is_sharded", lambda _: True)
    with pytest.raises(ConfigurationError, match=r"--optimiser\.matrices muon needs whole matrices"):
        run_geometry(replace(config(start, tmp_path / "run"), optimiser=MUON), lambda *_: Scenes(scene_batch))
