import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig, VggtOutput
from spatial_mllm_ros.verification import vggt as vggt_reference


def test_every_quantity_of_every_reference_case_is_met(golden_dir: Path) -> None:
    rows = list(vggt_reference.checks(golden_dir))
    assert [row for row in rows if not row.passed] == []
    quantities = {row.quantity for row in rows}
    assert {"dino_patchtokens", "pose_enc_iter3", "depth", "world_points_from_depth", "extrinsic"} <= quantities


def shapes_on_meta(config: VggtConfig) -> tuple[VGGT, dict[str, list[int]]]:
    with torch.device("meta"):
        model = VGGT(config)
    return model, {key: list(value.shape) for key, value in model.state_dict().items()}


def manifest(golden_dir: Path, name: str, prefix: str = "") -> dict[str, list[int]]:
    entries = json.loads((golden_dir / "manifests" / name).read_text())
    return {key.removeprefix(prefix): shape for key, (shape, _) in entries.items() if key.startswith(prefix)}


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("vggt_1b.json", ""),
        ("spatial_mllm_v1_1.json", "spatial_encoder.vggt_model."),
        ("spatial_mllm_v1_0_subset_sft.json", "vggt."),
    ],
)
def test_full_size_keys_and_shapes_are_those_of_the_published_checkpoints(
    golden_dir: Path, name: str, prefix: str
) -> None:
    model, ours = shapes_on_meta(VggtConfig.vggt_1b())
    published = manifest(golden_dir, name, prefix)
    assert ours == {key: shape for key, shape in published.items() if not key.startswith(model.unused_key_prefixes)}
    assert model.unused_key_prefixes == ("track_head.",)


def test_a_model_without_heads_declares_their_keys_unused(golden_dir: Path) -> None:
    model, ours = shapes_on_meta(VggtConfig.vggt_1b(camera_head=False, point_head=False))
    published = manifest(golden_dir, "vggt_1b.json")
    assert ours == {key: shape for key, shape in published.items() if not key.startswith(model.unused_key_prefixes)}
    assert model.unused_key_prefixes == ("track_head.", "camera_head.", "point_head.")
    assert VGGT.unused_key_prefixes == ("track_head.",)


def test_a_model_has_no_state_outside_its_checkpoint(small_model: VGGT) -> None:
    assert list(small_model.buffers()) == []


@pytest.mark.parametrize("wanted", [(VggtOutput.POSE,), (VggtOutput.DEPTH,), (VggtOutput.POINTS, VggtOutput.POSE)])
def test_only_what_is_asked_for_is_computed(
    small_model: VGGT, images: torch.Tensor, wanted: tuple[VggtOutput, ...]
) -> None:
    ran = []
    for name in ("camera_head", "depth_head", "point_head"):
        getattr(small_model, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.inference_mode():
        prediction = small_model(images, wanted)
    heads = {"camera_head": VggtOutput.POSE, "depth_head": VggtOutput.DEPTH, "point_head": VggtOutput.POINTS}
    assert ran == [name for name, output in heads.items() if output in wanted]
    assert (prediction.pose_encoding is not None) == (VggtOutput.POSE in wanted)
    assert (prediction.depth is not None) == (VggtOutput.DEPTH in wanted)
    assert (prediction.points_world is not None) == (VggtOutput.POINTS in wanted)
    assert prediction.last_layer is None


def test_outputs_have_the_documented_shapes_and_ranges(small_model: VGGT, images: torch.Tensor) -> None:
    with torch.inference_mode():
        prediction = small_model(images, list(VggtOutput))
    assert prediction.pose_encoding.shape == (2, 3, 9)
    assert prediction.depth.shape == prediction.depth_confidence.shape == (2, 3, 42, 70)
    assert prediction.points_world.shape == (2, 3, 42, 70, 3)
    assert prediction.last_layer.shape == (2, 3, 5 + 3 * 5, 64)
    assert (prediction.depth > 0).all()
    assert (prediction.depth_confidence >= 1).all()
    assert (prediction.points_confidence >= 1).all()
    assert (prediction.pose_encoding[..., 7:] >= 0).all()


def test_patch_tokens_for_the_language_model_need_no_head(small_model: VGGT, images: torch.Tensor) -> None:
    whole = small_model
    bare = VGGT(replace(whole.config, camera_head=False, depth_head=False, point_head=False)).eval()
    bare.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith(bare.unused_key_prefixes)})
    with torch.inference_mode():
        tokens = bare.last_layer_patch_tokens(images)
        expected = whole(images, [VggtOutput.LAST_LAYER]).last_layer[:, :, 5:]
    assert torch.equal(tokens, expected)


def test_clips_of_a_batch_do_not_see_each_other(small_model: VGGT, images: torch.Tensor) -> None:
    with torch.inference_mode():
        together = small_model(images, [VggtOutput.DEPTH, VggtOutput.POSE])
        alone = small_model(images[1:], [VggtOutput.DEPTH, VggtOutput.POSE])
    torch.testing.assert_close(together.depth[1:], alone.depth)
    torch.testing.assert_close(together.pose_encoding[1:], alone.pose_encoding)


def test_dense_heads_give_the_same_in_chunks(reference_model: VGGT) -> None:
    clip = torch.rand(1, 10, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    depth = {}
    with torch.inference_mode():
        for chunk in (0, 4, 8):
            reference_model.depth_head.frames_per_chunk = chunk
            depth[chunk] = reference_model(clip, [VggtOutput.DEPTH]).depth
    reference_model.depth_head.frames_per_chunk = reference_model.config.dpt_frames_per_chunk
    torch.testing.assert_close(depth[4], depth[0])
    torch.testing.assert_close(depth[8], depth[0])


def test_aggregator_precision_is_chosen_apart_from_the_heads(small_model: VGGT, images: torch.Tensor) -> None:
    with torch.inference_mode():
        exact = small_model(images, list(VggtOutput))
        small_model.to(torch.bfloat16).cast_aggregator(torch.bfloat16)
        rough = small_model(images, list(VggtOutput))
    assert small_model.aggregator.dtype == torch.bfloat16
    assert rough.last_layer.dtype == torch.bfloat16
    assert rough.depth.dtype == rough.pose_encoding.dtype == torch.float32
    assert float((rough.depth - exact.depth).norm() / exact.depth.norm()) < 0.05


def test_heads_in_half_precision_are_refused(small_model: VGGT, images: torch.Tensor) -> None:
    small_model.to(torch.bfloat16)
    with pytest.raises(ConfigurationError, match=r"camera_head has weights in torch.bfloat16.*cast_aggregator"):
        small_model(images, [VggtOutput.POSE])


def test_a_head_that_does_not_exist_is_named(small_config: VggtConfig, images: torch.Tensor) -> None:
    model = VGGT(replace(small_config, depth_head=False))
    with pytest.raises(ConfigurationError, match="built without depth_head"):
        model(images, [VggtOutput.DEPTH])


def test_asking_for_nothing_is_refused(small_model: VGGT, images: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="no output"):
        small_model(images, [])


def test_the_model_exports_with_any_number_of_frames(small_model: VGGT) -> None:
    small_model.depth_head.frames_per_chunk = small_model.point_head.frames_per_chunk = 0

    class Geometry(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vggt = small_model

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            prediction = self.vggt(images, (VggtOutput.POSE, VggtOutput.DEPTH, VggtOutput.POINTS))
            return prediction.pose_encoding, prediction.depth, prediction.points_world

    model = Geometry().eval()
    frames = torch.export.Dim("frames", min=2, max=12)
    program = torch.export.export(model, (torch.rand(1, 3, 3, 42, 56),), dynamic_shapes={"images": {1: frames}})
    clip = torch.rand(1, 5, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for exported, eager in zip(program.module()(clip), model(clip), strict=True):
            torch.testing.assert_close(exported, eager)
    dtypes = {value.dtype for node in program.graph.nodes if isinstance(value := node.meta.get("val"), torch.Tensor)}
    assert torch.float64 not in dtypes
