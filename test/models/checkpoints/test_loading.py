import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoints.config import qwen_config, vggt_config
from spatial_mllm_ros.models.checkpoints.files import read_checkpoint, write_checkpoint
from spatial_mllm_ros.models.checkpoints.layouts import Layout, key_differences, layout_of, model_on_meta
from spatial_mllm_ros.models.checkpoints.loading import (
    load_model,
    load_spatial_encoder,
    load_spatial_mllm,
    load_vggt,
    save_spatial_mllm,
)
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(checkpoint_folder, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(checkpoint_folder, tmp_path / "copy")


def change_weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        if value is None:
            config.pop(name)
        else:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))


def sharded(loaded, folder, **options):
    save_spatial_mllm(folder, loaded.model, loaded.config, loaded.tokenizer, max_shard_bytes=1_000_000, **options)
    return folder


def same_weights(a, b):
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# What loads


def test_a_saved_model_loads_back_from_one_file_and_from_shards(loaded, tmp_path):
    save_spatial_mllm(tmp_path / "one", loaded.model, loaded.config, loaded.tokenizer, texts={"LICENSE": "MIT\n"})
    assert {path.name for path in (tmp_path / "one").iterdir()} == {WEIGHTS, "config.json", "tokenizer.json", "LICENSE"}
    assert same_weights(load_spatial_mllm(tmp_path / "one").model, loaded.model)
    shards = sharded(loaded, tmp_path / "shards")
    assert len(list(shards.glob("*.safetensors"))) > 2
    assert all(path.stat().st_size < 1_500_000 for path in shards.glob("*.safetensors"))
    assert same_weights(load_spatial_mllm(shards).model, loaded.model)


def test_keys_in_the_file_are_those_of_the_published_checkpoints(checkpoint_folder, golden_dir):
    published = json.loads((golden_dir / "manifests" / "spatial_mllm_v1_1.json").read_text())
    ours = set(read_checkpoint(checkpoint_folder).tensors)
    assert ours <= set(published)
    assert {key.split(".")[0] for key in ours} == {key.split(".")[0] for key in published}


def test_nothing_is_left_on_the_meta_device_and_constants_are_those_of_a_plain_construction(loaded):
    config = qwen_config(loaded.config)
    plain = SpatialMllm(config, vggt_config(loaded.config, {}), Fusion.V1_1)
    ours = dict(loaded.model.named_buffers())
    assert ours.keys() == dict(plain.named_buffers()).keys()
    assert ours
    for name, buffer in plain.named_buffers():
        assert torch.equal(ours[name], buffer)
    assert not any(parameter.is_meta for parameter in loaded.model.parameters())


def test_the_output_layer_shares_the_weights_of_the_embeddings(loaded):
    assert loaded.model.lm_head.weight is loaded.model.get_input_embeddings().weight
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training


def test_a_tied_output_layer_may_be_in_the_file(folder, loaded):
    change_weights(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert same_weights(load_spatial_mllm(folder).model, loaded.model)


def test_an_untied_output_layer_must_be_in_the_file(folder):
    change_config(folder, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"1 missing: lm_head\.weight"):
        load_spatial_mllm(folder)
    change_weights(folder, lambda t: t.update({"lm_head.weight": 2 * t["model.embed_tokens.weight"]}))
    model = load_spatial_mllm(folder).model
    assert torch.equal(model.lm_head.weight, 2 * model.get_input_embeddings().weight)


def test_another_precision_leaves_the_heads_of_the_spatial_encoder_in_float32(checkpoint_folder, loaded):
    model = load_spatial_mllm(checkpoint_folder, dtype=torch.bfloat16).model
    encoder = model.spatial_encoder
    heads = {
        p.dtype for head in (encoder.camera_head, encoder.depth_head, encoder.point_head) for p in head.parameters()
    }
    assert heads == {torch.float32}
    others = {value.dtype for key, value in model.named_parameters() if "_head." not in key or key.startswith("lm_")}
    assert others == {torch.bfloat16}
    weight = "model.connector.mlp.0.weight"
    assert torch.equal(model.state_dict()[weight], loaded.model.state_dict()[weight].bfloat16())


def test_parts_of_vggt_that_are_not_used_may_be_in_the_file(folder, loaded):
    prefix = "spatial_encoder.vggt_model.track_head."
    change_weights(folder, lambda t: t.update({f"{prefix}tracker.x": torch.zeros(3)}))
    assert same_weights(load_spatial_mllm(folder).model, loaded.model)


def test_a_loaded_model_does_not_change_with_its_file(folder, loaded):
    model = load_spatial_mllm(folder).model
    with (folder / WEIGHTS).open("r+b") as weights:
        weights.seek(-1_000_000, 2)
        weights.write(b"\x7f" * 1_000_000)
    assert same_weights(model, loaded.model)


def test_generation_ends_where_the_folder_says_and_at_the_end_of_the_turn(folder, loaded):
    assert loaded.model.generation_config.eos_token_id == [loaded.tokenizer.end_id]
    (folder / "generation_config.json").write_text('{"eos_token_id": [7], "temperature": 0.1}')
    settings = load_spatial_mllm(folder).model.generation_config
    assert settings.eos_token_id == [7, loaded.tokenizer.end_id]
    assert not settings.do_sample


def test_a_vggt_folder_loads_without_a_config_section(tmp_path, loaded):
    encoder = loaded.model.spatial_encoder
    aggregator = {key: value for key, value in encoder.state_dict().items() if key.startswith("aggregator.")}
    write_checkpoint(tmp_path / "vggt", {}, aggregator)
    (tmp_path / "vggt" / "config.json").unlink()
    vggt = load_vggt(tmp_path / "vggt")
    assert (vggt.config.depth, vggt.config.heads, vggt.config.image_size_px) == (2, 1, 70)
    assert vggt.depth_head is None
    assert torch.equal(vggt.aggregator.camera_token, encoder.aggregator.camera_token)


def test_the_spatial_encoder_alone_is_that_of_the_whole_model(checkpoint_folder, loaded):
    encoder, identity = load_spatial_encoder(checkpoint_folder)
    whole = loaded.model.spatial_encoder.state_dict()
    assert encoder.state_dict().keys() == whole.keys()
    assert all(torch.equal(value, whole[key]) for key, value in encoder.state_dict().items())
    assert identity == loaded.identity


def test_a_spatial_encoder_that_is_incomplete_or_absent_is_refused(folder, tmp_path):
    change_weights(folder, lambda tensors: tensors.pop("spatial_encoder.vggt_model.aggregator.camera_token"))
    with pytest.raises(CheckpointError, match=r"aggregator\.camera_token"):
        load_spatial_encoder(folder)
    save_file({"visual.a": torch.zeros(1), "model.b": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="no spatial encoder"):
        load_spatial_encoder(folder)


def test_identity_tells_name_hash_licence_and_randomness(folder):
    identity = load_spatial_mllm(folder).identity
    assert identity.name == "copy"
    assert identity.sha256 == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert identity.random_weights
    change_config(folder, random_weights=None, license=None)
    (folder / "README.md").unlink()
    identity = load_spatial_mllm(folder).identity
    assert not identity.random_weights
    assert identity.licence == "unknown"


def test_layouts_are_told_apart(golden_dir):
    for name, layout in (
        ("vggt_1b", Layout.VGGT),
        ("qwen2_5_vl_3b", Layout.QWEN_VL),
        ("spatial_mllm_v1_0_subset_sft", Layout.SPATIAL_MLLM_1_0),
        ("spatial_mllm_v1_1", Layout.SPATIAL_MLLM_1_1),
    ):
        manifest = json.loads((golden_dir / "manifests" / f"{name}.json").read_text())
        assert layout_of({key: tuple(shape) for key, (shape, _) in manifest.items()}) is layout


def test_a_published_encoder_that_lost_its_last_blocks_is_not_taken_for_a_smaller_one(golden_dir):
    manifest = json.loads((golden_dir / "manifests" / "vggt_1b.json").read_text())
    shapes = {key: tuple(shape) for key, (shape, _) in manifest.items() if "_blocks.23." not in key}
    assert len(key_differences(model_on_meta(shapes, {}), shapes).missing) == 36


# What is refused, with the cause named


def test_missing_unexpected_and_misshapen_keys_are_listed(folder):
    def change(tensors):
        del tensors["connector.mlp.2.bias"]
        tensors["connector.mlp.4.bias"] = torch.zeros(1)
        tensors["model.norm.weight"] = torch.zeros(3)

    change_weights(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load_spatial_mllm(folder)
    message = str(caught.value)
    assert "1 missing: connector.mlp.2.bias." in message
    assert "1 unexpected: connector.mlp.4.bias." in message
    assert "1 of another shape: model.norm.weight [3] instead of [64]." in message


def test_of_many_missing_keys_ten_are_shown_with_the_count(folder):
    change_weights(folder, lambda t: [t.pop(key) for key in list(t) if key.startswith("model.layers.1.")])
    with pytest.raises(CheckpointError, match=r"12 missing: (?:\S+, ){10}\.\.\."):
        load_spatial_mllm(folder)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_truncated_weight_file_is_named(folder, keep):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or not a safetensors file.*again"):
        load_spatial_mllm(folder)


def test_a_weight_file_that_is_something_else_is_named(folder):
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or not"):
        load_spatial_mllm(folder)


def test_a_missing_shard_is_named(loaded, tmp_path):
    folder = sharded(loaded, tmp_path / "shards")
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        load_spatial_mllm(folder)


def test_shards_and_index_that_disagree_are_refused(loaded, tmp_path):
    folder = sharded(loaded, tmp_path / "shards")
    index = json.loads((folder / INDEX).read_text())
    key = sorted(index["weight_map"])[0]
    del index["weight_map"][key]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=f"disagree on 1 keys: {key}"):
        load_spatial_mllm(folder)
    (folder / INDEX).write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(CheckpointError, match="not a file of this folder"):
        load_spatial_mllm(folder)
    (folder / INDEX).write_text('{"weight_map": 3}')
    with pytest.raises(CheckpointError, match="no weight_map"):
        load_spatial_mllm(folder)
    (folder / INDEX).unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors\.index\.json"):
        load_spatial_mllm(folder)


def test_a_second_weight_file_beside_the_indexed_ones_is_refused(loaded, tmp_path):
    folder = sharded(loaded, tmp_path / "shards")
    save_file({"x": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"holds model\.safetensors, which .*index\.json does not name"):
        load_spatial_mllm(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_by_name_with_the_remedy(folder, name):
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(CheckpointError, match=rf"{name}.*safetensors variant"):
        load_spatial_mllm(folder)


def test_folders_and_files_that_are_not_there_are_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint folder '.*absent'"):
        load_spatial_mllm(tmp_path / "absent")
    (folder / "tokenizer.json").rename(tmp_path / "kept")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_spatial_mllm(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        load_spatial_mllm(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_spatial_mllm(folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\udcff"])
def test_a_malformed_config_is_named(folder, content):
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_spatial_mllm(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "does not say hidden_size"),
        ({"vision_config": None}, "no vision_config"),
        ({"vision_config": {"depth": 2}}, r"does not say .*vision_config\.tokens_per_second"),
        ({"rope_scaling": None}, "mrope_section"),
        ({"rope_scaling": {"type": "yarn", "mrope_section": [2, 3, 3]}}, "rope_type 'yarn'"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": "2,3,3"}}, "mrope_section"),
        ({"rope_theta": None}, "rope_theta"),
        ({"hidden_size": "wide"}, "hidden_size = 'wide'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"num_attention_heads": 8}, "num_attention_heads 8"),
        ({"max_position_embeddings": "many"}, "a value that Qwen2.5-VL cannot have.*max_position_embeddings"),
        ({"vggt_config": {"width": 3}}, "section vggt_config"),
        ({"vggt_config": {"embed_dim": -1}}, "vggt_config of config.json is not usable"),
        ({"vggt_config": None}, 'Add a section "vggt_config"'),
        ({"random_weights": "yes"}, "random_weights in config.json is 'yes'"),
        ({"num_hidden_layers": 2}, "12 unexpected"),
    ],
)
def test_a_config_that_does_not_describe_the_model_is_refused(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        load_spatial_mllm(folder)


def test_a_patch_size_that_frames_are_not_prepared_for_is_refused(folder):
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    change_config(folder, vision_config={**vision, "patch_size": 16})
    with pytest.raises(CheckpointError, match=r"vision_config\.patch_size = 16; only 14"):
        load_spatial_mllm(folder)


def test_other_models_are_refused(tmp_path, folder):
    with torch.device("cpu"):
        small = VGGT(
            VggtConfig(
                image_size_px=28, embed_dim=8, dino_depth=1, dino_heads=1, depth=1, heads=1,
                camera_head=False, depth_head=False, point_head=False,
            )
        )  # fmt: skip
    write_checkpoint(tmp_path / "vggt", {}, small.state_dict())
    with pytest.raises(CheckpointError, match="holds a VGGT model, not a Spatial-MLLM"):
        load_spatial_mllm(tmp_path / "vggt")
    with pytest.raises(CheckpointError, match=r"holds a Spatial-MLLM v1\.1 model, not a VGGT alone"):
        load_vggt(folder)
    write_checkpoint(tmp_path / "other", {}, {"encoder.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="The keys start with encoder"):
        load_model(read_checkpoint(tmp_path / "other"))


# Saving


def test_an_existing_folder_is_never_overwritten(loaded, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match="exists already"):
        save_spatial_mllm(folder, loaded.model, loaded.config, loaded.tokenizer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_failed_save_leaves_nothing_behind(loaded, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_spatial_mllm(
            tmp_path / "x", loaded.model, loaded.config, loaded.tokenizer, texts={"no/such/folder.txt": "x"}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_of_another_model_is_not_saved(loaded, tmp_path):
    with pytest.raises(CheckpointError, match="does not describe the model"):
        save_spatial_mllm(tmp_path / "x", loaded.model, {**loaded.config, "num_hidden_layers": 4}, loaded.tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("stated", "metres"), [(None, None), (2, 2.0), (0.5, 0.5)])
def test_the_unit_of_the_spatial_encoder_is_what_the_folder_states(folder, stated, metres):
    change_config(folder, **({} if stated is None else {"spatial_unit_m": stated}))
    assert load_spatial_mllm(folder).spatial_unit_m == metres


@pytest.mark.parametrize("stated", [0, -1.0, "2 m", True, float("inf")])
def test_a_unit_that_is_no_length_is_an_error(folder, stated):
    change_config(folder, spatial_unit_m=stated)
    with pytest.raises(CheckpointError, match="spatial_unit_m"):
        load_spatial_mllm(folder)
