import logging

import numpy as np
import pytest
import torch

from spatial_mllm_ros.answering.setup import SessionConfig, open_session
from spatial_mllm_ros.engines import choose
from spatial_mllm_ros.engines.choose import BackendConfig, open_backends
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.vggt import VggtOutput
from spatial_mllm_ros.scene.config import SceneConfig

WEIGHTS = "5e" * 32
GEOMETRY = (VggtOutput.POSE, VggtOutput.DEPTH)


def clip(frames):
    return torch.rand(1, frames, 3, 42, 56, generator=torch.Generator().manual_seed(frames))


def test_auto_takes_the_exports_of_these_weights_and_torch_for_the_rest(
    vggt, geometry_export, fusion_export, exports_folder, caplog
):
    with caplog.at_level(logging.INFO):
        chain = open_backends(vggt, WEIGHTS, BackendConfig(exports=exports_folder))
    assert chain.name == "onnxruntime-cpu(geometry-56x42-f2-6-fp32) > torch"
    assert "TensorRT: the model is not on a CUDA device" in caplog.text
    assert "fusion-42x56-f2-8-fp16 is in half precision" in caplog.text
    for frames, used in ((1, "torch"), (4, "onnxruntime-cpu(geometry-56x42-f2-6-fp32)"), (7, "torch")):
        with torch.no_grad():
            expected = vggt(clip(frames), GEOMETRY).depth
        torch.testing.assert_close(chain(clip(frames), GEOMETRY).depth, expected, rtol=1e-4, atol=1e-4)
        assert chain.last_used == used
    assert chain.fault == ""


def test_auto_without_exports_is_torch_and_says_how_to_make_one(vggt, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        chain = open_backends(vggt, WEIGHTS, BackendConfig(exports=tmp_path))
    assert chain.name == "torch"
    assert "spatial_mllm engine export makes one" in caplog.text


def test_exports_of_other_weights_are_never_used(vggt, geometry_export, exports_folder, caplog):
    with caplog.at_level(logging.INFO):
        assert open_backends(vggt, "00" * 32, BackendConfig(exports=exports_folder)).name == "torch"
    assert "was exported from other weights" in caplog.text


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime"])
def test_a_backend_that_is_named_must_work(vggt, tmp_path, backend):
    with pytest.raises(ConfigurationError, match=f"'{backend}', which does not work here: there is no export"):
        open_backends(vggt, WEIGHTS, BackendConfig(backend, exports=tmp_path))


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigurationError, match=r"encoder\.backend is 'npu'; it must be one of auto, tensorrt"):
        BackendConfig("npu")


@pytest.mark.parametrize(("backend", "name"), [("torch", "torch"), ("torch-compiled", "torch-compiled > torch")])
def test_torch_needs_no_export(vggt, tmp_path, backend, name):
    assert open_backends(vggt, WEIGHTS, BackendConfig(backend, exports=tmp_path)).name == name


def test_on_cuda_engines_in_the_cache_come_first_and_their_absence_is_explained(
    vggt, geometry_export, exports_folder, monkeypatch, caplog
):
    reasons = []

    def absent():
        raise EngineError("unavailable", "TensorRT (tensorrt) does not load: No module named 'tensorrt'.")

    monkeypatch.setattr(choose.TensorRtHere, "find", staticmethod(absent))
    assert choose._tensorrt([geometry_export], BackendConfig(), True, reasons) == []
    assert reasons == ["TensorRT: TensorRT (tensorrt) does not load: No module named 'tensorrt'."]


# -- the session -------------------------------------------------------------------------------------------------------


def frame(index):
    rng = np.random.default_rng(index)
    return Frame(1_000_000_000 + index * 250_000_000, rng.integers(0, 256, (42, 56, 3), dtype=np.uint8))


def test_scene_and_language_model_use_the_same_backends(monkeypatch, random_checkpoint):
    asked = []
    really_open = choose.open_backends

    def spy(vggt, model_sha256, config):
        chain = really_open(vggt, model_sha256, config)
        really_call = chain._backends[0]

        class Spy:
            name = "spy"

            def refusal(self, shape, outputs):
                return really_call.refusal(shape, outputs)

            def __call__(self, images, outputs):
                asked.append(frozenset(outputs))
                return really_call(images, outputs)

            def close(self):
                pass

        chain._backends[0] = Spy()
        return chain

    monkeypatch.setattr("spatial_mllm_ros.answering.setup.open_backends", spy)
    config = SessionConfig(
        checkpoint=str(random_checkpoint),
        encoder_backend="torch",
        encoder_image_width_px=56,
        threads=1,
        scene=SceneConfig(rate_hz=0, selected_frames=2),
    )
    session = open_session(config)
    for index in range(3):
        session.scene.add(frame(index))
    session.scene.process()
    assert asked == [frozenset(GEOMETRY)]
    fused = session.model.loaded.model
    grid, frames = (4, 6), torch.rand(2, 3, 56, 84)
    with torch.no_grad():
        found = fused.model.spatial_tokens(frames, grid)
        assert asked[-1] == frozenset({VggtOutput.LAST_LAYER})
        fused.take_last_layer_from(None)
        assert torch.equal(fused.model.spatial_tokens(frames, grid), found)
    assert len(asked) == 2
