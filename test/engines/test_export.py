import copy
import json
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file

from spatial_mllm_ros.engines import export as exporter
from spatial_mllm_ros.engines.backend import tensors_of
from spatial_mllm_ros.engines.export import ExportOptions, export_profile
from spatial_mllm_ros.engines.exported import DATA_NAME, find_exported, read_exported
from spatial_mllm_ros.engines.mixed_precision import to_precision
from spatial_mllm_ros.engines.profile import EngineProfile, Precision
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.models.vggt import VggtOutput

IDENTITY = ModelIdentity("other", "0f" * 32, "VGGT", "apache-2.0", random_weights=True)


def test_inputs_outputs_and_the_dynamic_axis_have_names(geometry_export):
    graph = onnx.load(geometry_export.model_path, load_external_data=False).graph
    shapes = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "images": [1, "frames", 3, 42, 56],
        "pose_encoding": [1, "frames", 9],
        "depth": [1, "frames", 42, 56],
        "depth_confidence": [1, "frames", 42, 56],
    }
    assert graph.name == geometry_export.profile.name


def test_the_file_itself_says_what_it_is(geometry_export):
    inside = {entry.key: entry.value for entry in onnx.load(geometry_export.model_path).metadata_props}
    assert inside == dict(geometry_export.metadata)
    assert inside["model_sha256"] == "5e" * 32
    assert inside["random_weights"] == "true"
    assert EngineProfile.from_json(json.loads(inside["profile"])) == geometry_export.profile


def test_the_file_names_no_folder_of_whoever_exported_it(geometry_export):
    assert b"site-packages" not in geometry_export.model_path.read_bytes()


@pytest.mark.parametrize(("which", "opset", "attention"), [("geometry_export", 23, True), ("fusion_export", 20, False)])
def test_the_attention_operator_is_used_from_opset_23(request, which, opset, attention):
    model = onnx.load(request.getfixturevalue(which).model_path)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]
    assert any(node.op_type == "Attention" for node in model.graph.node) is attention


def test_weights_lie_beside_the_graph_where_asked_for(geometry_export, fusion_export):
    assert (geometry_export.folder / DATA_NAME).stat().st_size > 100_000
    assert DATA_NAME in geometry_export.files
    assert not (fusion_export.folder / DATA_NAME).exists()


def test_half_precision_is_in_the_types_of_the_graph_and_not_in_norms_or_outputs(fusion_export):
    model = onnx.shape_inference.infer_shapes(onnx.load(fusion_export.model_path))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {weight.name: weight.data_type for weight in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in types]
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    of_products = [types[node.input[1]] for node in products]
    assert of_products.count(onnx.TensorProto.FLOAT) == 1  # the patches' projection, before the first block
    assert of_products.count(onnx.TensorProto.FLOAT16) == len(of_products) - 1 >= 30
    assert {types[node.output[0]] for node in norms} == {onnx.TensorProto.FLOAT}
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_parity_table_is_stored_and_within_the_limits(geometry_export, fusion_export):
    assert {(row.frames, row.tensor) for row in geometry_export.parity} == {
        (frames, tensor) for frames in (2, 3) for tensor in ("pose_encoding", "depth", "depth_confidence")
    }
    assert all(row.accepted and row.relative_error < 1e-5 for row in geometry_export.parity)
    assert all(row.cosine > 0.9999 and row.relative_error > 1e-5 for row in fusion_export.parity)
    assert all(row.runtime == "onnxruntime-cpu" for row in fusion_export.parity)


def test_the_sample_is_what_torch_computes(vggt, geometry_export):
    sample = load_file(geometry_export.sample_path)
    images = sample.pop("images")
    with torch.no_grad():
        expected = tensors_of(vggt(images, geometry_export.profile.outputs), geometry_export.profile.outputs)
    assert images.shape == (1, 2, 3, 42, 56)
    assert sample.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(sample[name], tensor)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_mixed_precision_changes_the_numbers_a_little_and_the_keys_not_at_all(vggt, precision):
    mixed = to_precision(copy.deepcopy(vggt), Precision(precision))
    images = torch.rand(1, 3, 3, 42, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact, rough = (model(images, [VggtOutput.DEPTH]).depth for model in (vggt, mixed))
    error = float((rough - exact).norm() / exact.norm())
    assert 1e-6 < error < 0.02
    assert rough.dtype == torch.float32
    assert mixed.state_dict().keys() == vggt.state_dict().keys()
    with pytest.raises(ConfigurationError, match="mixed precision already"):
        to_precision(mixed, Precision.BF16)


def test_an_export_that_computes_something_else_is_refused_and_leaves_nothing(vggt, tmp_path, monkeypatch):
    class Wrong:
        name = "wrong"

        def __init__(self, exported):
            self.profile = exported.profile

        def __call__(self, images, outputs):
            prediction = vggt(images, outputs)
            prediction.last_layer.mul_(1 + 0.5 * torch.rand_like(prediction.last_layer))
            return prediction

        def close(self):
            pass

    monkeypatch.setattr("spatial_mllm_ros.engines.onnxruntime_backend.OnnxRuntimeBackend", Wrong)
    monkeypatch.setattr(exporter, "_export", lambda *_: _Program())
    monkeypatch.setattr(exporter, "_check", lambda *_: None)
    with pytest.raises(EngineError, match=r"does not compute what torch computes[\s\S]*NOT ACCEPTED") as caught:
        export_profile(copy.deepcopy(vggt), IDENTITY, EngineProfile("fusion", 42, 42, 2, 2, 4), tmp_path / "e")
    assert caught.value.cause == "parity"
    assert list(tmp_path.iterdir()) == []


class _Program:
    """Stands for the exporter's result."""

    class _Graph:
        name = ""

        def all_nodes(self):
            return []

    def __init__(self):
        self.model = type("Model", (), {"graph": self._Graph(), "metadata_props": {}})()

    def save(self, path, external_data):
        Path(path).write_bytes(b"graph")


def test_a_disk_that_is_full_leaves_nothing(vggt, tmp_path, monkeypatch):
    class FullDisk(_Program):
        def save(self, path, external_data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporter, "_export", lambda *_: FullDisk())
    with pytest.raises(EngineError, match="No space left on device") as caught:
        export_profile(copy.deepcopy(vggt), IDENTITY, EngineProfile("fusion", 42, 42, 2, 2, 4), tmp_path / "e")
    assert caught.value.cause == "build"
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_found_by_its_weights_and_others_are_named(geometry_export, fusion_export, exports_folder):
    found, passed_over = find_exported(exports_folder, model_sha256="5e" * 32)
    assert [e.profile.name for e in found] == [fusion_export.profile.name, geometry_export.profile.name]
    assert passed_over == []
    found, passed_over = find_exported(exports_folder, model_sha256="00" * 32)
    assert found == []
    assert all("exported from other weights: small (5e5e" in reason for reason in passed_over)


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "export.json").write_text('{"metadata": {}}')
    with pytest.raises(EngineError, match=r"export\.json is not the manifest of an export"):
        read_exported(tmp_path)


def test_an_unknown_opset_is_refused():
    with pytest.raises(ConfigurationError, match="opset is 17"):
        ExportOptions(opset=17)
