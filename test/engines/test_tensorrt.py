"""TensorRT against a stand-in, and TensorRT-RTX, which builds without a GPU, where that is installed."""

import importlib
import logging
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from spatial_mllm_ros.engines.backend import FakeBackend
from spatial_mllm_ros.engines.cache import EngineCache
from spatial_mllm_ros.engines.profile import Precision
from spatial_mllm_ros.engines.tensorrt_backend import TensorRtBackend
from spatial_mllm_ros.engines.tensorrt_build import build_engine
from spatial_mllm_ros.engines.tensorrt_engines import TensorRtHere, best_for, open_tensorrt
from spatial_mllm_ros.engines.tensorrt_probe import GpuInfo, TensorRtInfo, gpu_info, probe_tensorrt
from spatial_mllm_ros.engines.torch_backend import TorchBackend
from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.models.vggt import VggtOutput

GEOMETRY = (VggtOutput.POSE, VggtOutput.DEPTH)
ORIN = GpuInfo("NVIDIA Orin", "8.7", "R36 (release), REVISION: 4.3", "Linux-aarch64")


def clip(frames):
    return torch.rand(1, frames, 3, 42, 56, generator=torch.Generator().manual_seed(frames))


# -- the probe ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def module_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


WORKING = """
__version__ = "10.3.0.26"
class Logger:
    ERROR = 1
    def __init__(self, level): pass
def Runtime(logger): return object()
"""


def test_the_probe_tells_the_version_and_whether_it_can_build(module_folder):
    (module_folder / "trt_lean.py").write_text(WORKING)
    (module_folder / "trt_whole.py").write_text(WORKING + "Builder = OnnxParser = object\n")
    assert probe_tensorrt("trt_lean") == TensorRtInfo("10.3.0.26", can_build=False)
    assert probe_tensorrt("trt_whole") == TensorRtInfo("10.3.0.26", can_build=True)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashes with SIGSEGV"),
        ("raise OSError('libcuda.so.1: cannot open shared object file')", "libcuda.so.1: cannot open"),
        (WORKING.replace("10.3.0.26", "unknown"), "makes no sense"),
        ("print('hello'); import sys; sys.exit(0)", "makes no sense"),
    ],
)
def test_a_broken_installation_costs_a_sentence_and_not_the_process(module_folder, source, reason):
    (module_folder / "trt_broken.py").write_text(source)
    with pytest.raises(EngineError, match=reason) as caught:
        probe_tensorrt("trt_broken")
    assert caught.value.cause == "unavailable"


def test_what_to_install_is_said():
    with pytest.raises(EngineError, match=r"No module named 'trt_absent'.*comes with JetPack.*pip install tensorrt"):
        probe_tensorrt("trt_absent")


def test_without_a_gpu_nothing_is_looked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="no CUDA device"):
        TensorRtHere.find("trt_absent")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_has_a_name_and_a_capability():
    assert gpu_info().name
    assert float(gpu_info().sm) >= 7.5


# -- building ----------------------------------------------------------------------------------------------------------


def test_a_build_is_strongly_typed_without_tf32_and_says_what_it_does(fake_tensorrt, geometry_export, tmp_path):
    trt, _ = fake_tensorrt()
    told = []
    (tmp_path / "timing").write_bytes(b"old")
    build_engine(
        trt,
        geometry_export.model_path,
        geometry_export.profile,
        tmp_path / "engine",
        timing_cache=tmp_path / "timing",
        tell=told.append,
    )
    shapes = ("images", (1, 2, 3, 42, 56), (1, 3, 3, 42, 56), (1, 6, 3, 42, 56))
    assert trt.log == [("flags", 1 << 1), ("clear", "tf32"), shapes, ("timing", b"old")]
    assert told == ["Building, step 1 of 2"]
    assert (tmp_path / "engine").read_bytes() == b"engine of 10.14.1.48"
    assert (tmp_path / "timing").read_bytes() == b"old+"


@pytest.mark.parametrize(("version", "marked"), [("10.3.0.26", False), ("10.14.1.48", True), ("11.4.1.2", True)])
def test_float32_attention_may_be_decomposed_where_there_are_such_layers(
    fake_tensorrt, geometry_export, tmp_path, version, marked
):
    trt, _ = fake_tensorrt(version=version)
    build_engine(trt, geometry_export.model_path, geometry_export.profile, tmp_path / "engine")
    assert [layer.attention.decomposable for layer in trt.network.layers] == [False, marked]


@pytest.mark.parametrize(
    ("refuses", "reason"),
    [("parse", "node_3: unsupported operator"), ("profile", "does not take the shapes"), ("build", "node_7")],
)
def test_a_build_that_fails_says_what_tensorrt_said(fake_tensorrt, geometry_export, tmp_path, refuses, reason):
    trt, _ = fake_tensorrt(refuses=refuses)
    with pytest.raises(EngineError, match=reason) as caught:
        build_engine(trt, geometry_export.model_path, geometry_export.profile, tmp_path / "engine")
    assert caught.value.cause == "build"
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("which", ["geometry_export", "fusion_export"])
def test_tensorrt_rtx_parses_and_builds_our_graphs_without_a_gpu(request, which, tmp_path):
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (docs/engines.md)")
    exported = request.getfixturevalue(which)
    build_engine(trt, exported.model_path, exported.profile, tmp_path / "engine")
    assert (tmp_path / "engine").stat().st_size > 10_000


# -- running -----------------------------------------------------------------------------------------------------------


def test_it_is_warm_before_the_first_request_and_captures_each_number_of_frames_once(
    fake_tensorrt, vggt, geometry_export
):
    trt, device = fake_tensorrt(TorchBackend(vggt))
    backend = TensorRtBackend(trt, b"engine", geometry_export.profile, device)
    assert (trt.executed, device.captured) == (1, 1)
    for frames in (3, 5, 3, 5):
        backend(clip(frames), GEOMETRY)
    assert device.captured == 2
    for frames in (2, 4, 6):
        backend(clip(frames), GEOMETRY)
    assert len(backend._launches) == 4


def test_a_launch_that_cannot_be_captured_is_made_every_time(fake_tensorrt, vggt, geometry_export, monkeypatch):
    trt, device = fake_tensorrt(TorchBackend(vggt))

    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(device, "capture", refuse)
    backend = TensorRtBackend(trt, b"engine", geometry_export.profile, device)
    assert torch.isfinite(backend(clip(3), GEOMETRY).depth).all()


def test_the_buffers_are_those_of_the_most_frames_whatever_is_asked(fake_tensorrt, vggt, geometry_export):
    trt, device = fake_tensorrt(TorchBackend(vggt))
    backend = TensorRtBackend(trt, b"engine", geometry_export.profile, device)
    before = backend.device_bytes
    pixels = 42 * 56
    assert before == 4096 + 4 * 6 * (3 * pixels + 9 + 2 * pixels)
    backend(clip(6), GEOMETRY)
    assert backend.device_bytes == before


def test_an_engine_that_does_not_load_or_run_says_why(fake_tensorrt, vggt, geometry_export):
    trt, device = fake_tensorrt(TorchBackend(vggt))
    with pytest.raises(EngineError, match="magic tag does not match"):
        TensorRtBackend(trt, b"garbage", geometry_export.profile, device)
    with pytest.raises(EngineError, match=r"not those of geometry\+pose-56x42-f2-6-bf16"):
        TensorRtBackend(trt, b"engine", replace(geometry_export.profile, precision="bf16", outputs=("pose",)), device)
    trt.refuses = "run"
    with pytest.raises(EngineError, match="illegal memory access") as caught:
        TensorRtBackend(trt, b"engine", geometry_export.profile, device)
    assert caught.value.cause == "run"


# -- from the export to the backend ------------------------------------------------------------------------------------


@pytest.fixture
def here(fake_tensorrt, vggt, monkeypatch):
    trt, device = fake_tensorrt(TorchBackend(vggt))
    monkeypatch.setitem(sys.modules, "trt_stand_in", trt)
    found = TensorRtHere(TensorRtInfo(trt.__version__, can_build=True), ORIN, "trt_stand_in")
    assert importlib.import_module("trt_stand_in") is trt
    return SimpleNamespace(found=found, trt=trt, device=device)


def test_an_engine_is_built_once_checked_and_used(here, geometry_export, tmp_path, caplog):
    cache = EngineCache(tmp_path / "engines")
    with caplog.at_level(logging.INFO):
        first = open_tensorrt(here.found, geometry_export, cache, may_build=True, device=here.device)
    assert "Building the engine" in caplog.text
    builds = here.trt.log.count(("clear", "tf32"))
    again = open_tensorrt(here.found, geometry_export, cache, may_build=False, device=here.device)
    assert here.trt.log.count(("clear", "tf32")) == builds == 1
    assert torch.equal(first(clip(3), GEOMETRY).depth, again(clip(3), GEOMETRY).depth)
    (engine,) = cache.engines(verify=True)
    assert (engine.problem, engine.key["gpu"], engine.key["sm"]) == ("", "NVIDIA Orin", "8.7")
    assert cache.timing_cache.is_file()


def test_without_leave_to_build_the_command_is_told(here, geometry_export, tmp_path):
    with pytest.raises(EngineError, match=r"To build it: spatial_mllm engine build .*geometry") as caught:
        open_tensorrt(here.found, geometry_export, EngineCache(tmp_path / "engines"), may_build=False)
    assert caught.value.cause == "missing"


def test_the_lean_runtime_cannot_build_and_says_so(here, geometry_export, tmp_path):
    lean = replace(here.found, info=TensorRtInfo("10.3.0.26", can_build=False))
    with pytest.raises(EngineError, match="lean runtime"):
        open_tensorrt(lean, geometry_export, EngineCache(tmp_path / "engines"), may_build=True)


def test_an_engine_that_computes_something_else_is_refused(here, geometry_export, tmp_path):
    here.trt.backend = FakeBackend()
    with pytest.raises(EngineError, match=r"does not compute what torch computes[\s\S]*NOT ACCEPTED") as caught:
        open_tensorrt(here.found, geometry_export, EngineCache(tmp_path / "e"), may_build=True, device=here.device)
    assert caught.value.cause == "parity"


def test_the_newest_operators_that_a_version_knows_are_taken(geometry_export):
    older = replace(geometry_export, metadata={**geometry_export.metadata, "opset": "20"})
    for version, opset in (("10.3.0.26", 20), ("10.13.2.6", 20), ("10.14.1.48", 23), ("11.4.1.2", 23)):
        here = TensorRtHere(TensorRtInfo(version, can_build=True), ORIN)
        assert [e.opset for e in best_for(here, [geometry_export, older])] == [opset]
    assert best_for(TensorRtHere(TensorRtInfo("10.3.0.26", can_build=True), ORIN), [geometry_export]) == []


def test_the_key_has_the_weights_the_versions_and_the_gpu(geometry_export):
    key = TensorRtHere(TensorRtInfo("10.3.0.26", can_build=True), ORIN).key(geometry_export)
    assert key.onnx_sha256 == geometry_export.onnx_sha256
    assert (key.runtime, key.gpu, key.sm) == ("tensorrt 10.3.0.26", "NVIDIA Orin", "8.7")
    assert key.precision == Precision.FP32.value
