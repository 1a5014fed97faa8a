"""The contract of EngineBackend, for every way of running VGGT that this machine has."""

import pytest
import torch

from spatial_mllm_ros.engines.backend import FakeBackend
from spatial_mllm_ros.engines.exported import MODEL_NAME, ExportedModel
from spatial_mllm_ros.engines.onnxruntime_backend import OnnxRuntimeBackend, available_providers
from spatial_mllm_ros.engines.parity import compare
from spatial_mllm_ros.engines.profile import EngineProfile, Precision
from spatial_mllm_ros.engines.tensorrt_backend import TensorRtBackend
from spatial_mllm_ros.engines.torch_backend import TorchBackend
from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.models.vggt import VggtOutput

GEOMETRY = (VggtOutput.POSE, VggtOutput.DEPTH)
HEIGHT, WIDTH = 42, 56
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def clip(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, frames, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(
    params=[
        "fake",
        "torch",
        "torch-compiled",
        "onnxruntime-cpu",
        "tensorrt-stand-in",
        pytest.param("onnxruntime-cuda", marks=NEEDS_GPU),
        pytest.param("tensorrt", marks=NEEDS_GPU),
    ]
)
def backend(request, vggt, geometry_export, fake_tensorrt, tmp_path):
    name = request.param
    if name == "fake":
        made = FakeBackend(geometry_export.profile)
    elif name == "torch":
        made = TorchBackend(vggt)
    elif name == "torch-compiled":
        # the compiler of the real one takes a minute; what is captured is the same
        made = TorchBackend(vggt, compiled=True, compiler="eager")
    elif name == "tensorrt-stand-in":
        trt, device = fake_tensorrt(TorchBackend(vggt))
        made = TensorRtBackend(trt, b"engine", geometry_export.profile, device)
    elif name == "tensorrt":
        made = real_tensorrt(geometry_export, tmp_path)
    else:
        provider = name.removeprefix("onnxruntime-")
        if provider not in available_providers():
            pytest.skip(f"ONNX Runtime has no provider {provider} here")
        made = OnnxRuntimeBackend(geometry_export, provider=provider)
    yield made
    made.close()


def real_tensorrt(exported: ExportedModel, folder):
    from spatial_mllm_ros.engines.cache import EngineCache
    from spatial_mllm_ros.engines.tensorrt_engines import TensorRtHere, open_tensorrt

    try:
        here = TensorRtHere.find()
    except EngineError as error:
        pytest.skip(str(error))
    if not here.takes(exported):
        pytest.skip(f"TensorRT {here.info.version} does not know opset {exported.opset}")
    return open_tensorrt(here, exported, EngineCache(folder / "engines"), may_build=True)


@pytest.mark.parametrize("frames", [2, 5])
def test_it_gives_what_torch_gives(backend, vggt, frames):
    with torch.no_grad():
        expected = vggt(clip(frames), GEOMETRY)
    found = backend(clip(frames), frozenset(GEOMETRY))
    names = ("pose_encoding", "depth", "depth_confidence")
    assert {name: getattr(found, name).shape for name in names} == {
        name: getattr(expected, name).shape for name in names
    }
    assert all(getattr(found, name).dtype == torch.float32 for name in names)
    if not isinstance(backend, FakeBackend):
        tensors = ({name: getattr(prediction, name) for name in names} for prediction in (found, expected))
        assert [row for row in compare(backend.name, *tensors, Precision.FP32) if not row.accepted] == []


def test_it_gives_only_what_is_asked_for(backend):
    prediction = backend(clip(3), [VggtOutput.POSE])
    assert prediction.pose_encoding.shape == (1, 3, 9)
    assert prediction.depth is prediction.points_world is prediction.last_layer is None


def test_results_belong_to_the_caller(backend):
    first = backend(clip(3, seed=1), GEOMETRY)
    kept = first.depth.clone()
    second = backend(clip(3, seed=2), GEOMETRY)
    assert torch.equal(first.depth, kept)
    assert not torch.equal(first.depth, second.depth)


def test_equal_images_give_equal_results_whatever_came_between(backend):
    before = backend(clip(3), GEOMETRY).depth.clone()
    backend(clip(5, seed=9), GEOMETRY)
    assert torch.equal(backend(clip(3), GEOMETRY).depth, before)


@pytest.mark.parametrize(
    "shape",
    [(3, HEIGHT, WIDTH), (2, 3, 3, HEIGHT, WIDTH), (1, 3, 3, HEIGHT, WIDTH + 1), (1, 0, 3, HEIGHT, WIDTH)],
)
def test_a_shape_that_is_refused_is_refused_before_and_in_the_call(backend, shape):
    assert backend.refusal(shape, GEOMETRY)
    with pytest.raises(EngineError, match="cannot take this request") as caught:
        backend(torch.zeros(shape), GEOMETRY)
    assert caught.value.cause == "shape"


def test_a_head_that_is_not_there_is_refused(backend):
    assert backend.refusal((1, 3, 3, HEIGHT, WIDTH), [VggtOutput.POINTS])


def test_it_is_closed_for_good_and_may_be_closed_twice(backend):
    backend.close()
    backend.close()
    assert "closed" in backend.refusal((1, 3, 3, HEIGHT, WIDTH), GEOMETRY)
    with pytest.raises(EngineError, match="closed"):
        backend(clip(3), GEOMETRY)


# -- what only some of them can do wrong -------------------------------------------------------------------------------


def test_an_export_that_was_changed_is_not_loaded(geometry_export, tmp_path):
    for path in geometry_export.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = bytearray((tmp_path / MODEL_NAME).read_bytes())
    model[len(model) // 2] ^= 1
    (tmp_path / MODEL_NAME).write_bytes(model)
    changed = ExportedModel(
        tmp_path, geometry_export.profile, geometry_export.metadata, geometry_export.files, geometry_export.parity
    )
    with pytest.raises(EngineError, match=r"SHA-256 of .*model\.onnx is not the one in its manifest") as caught:
        OnnxRuntimeBackend(changed)
    assert caught.value.cause == "tampered"


def test_a_provider_that_is_not_there_is_named(geometry_export):
    with pytest.raises(EngineError, match="no provider 'npu'"):
        OnnxRuntimeBackend(geometry_export, provider="npu")


def test_the_fusion_export_gives_the_last_layer_in_half_precision(vggt, fusion_export):
    backend = OnnxRuntimeBackend(fusion_export)
    images = torch.rand(1, 6, 3, 56, 42, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = vggt(images, [VggtOutput.LAST_LAYER]).last_layer
    found = backend(images, [VggtOutput.LAST_LAYER]).last_layer
    (row,) = compare("", {"last_layer": found}, {"last_layer": expected}, Precision.FP16)
    assert row.accepted
    assert row.relative_error > 1e-6


def test_a_profile_refuses_by_frames_and_size_and_output():
    profile = EngineProfile("geometry", 56, 42, 2, 3, 6)
    assert "takes 2 to 6 frames, not 7" in profile.refusal((1, 7, 3, 42, 56), GEOMETRY)
    assert "[1, 3, 3, 42, 56]" in profile.refusal((1, 3, 3, 56, 42), GEOMETRY)
    assert "last_layer" in profile.refusal((1, 3, 3, 42, 56), [VggtOutput.LAST_LAYER])
    assert profile.refusal((1, 6, 3, 42, 56), [VggtOutput.POSE]) == ""
