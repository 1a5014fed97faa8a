"""Drill F14: an engine that gives NaN or inf, in the middle of a robot's work."""

import logging

import numpy as np
import pytest
import torch

from spatial_mllm_ros.encoders.auto import AutoGeometryEncoder
from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.encoders.vggt import VggtGeometryEncoder
from spatial_mllm_ros.engines.backend import FakeBackend
from spatial_mllm_ros.engines.chain import BackendChain
from spatial_mllm_ros.engines.profile import EngineProfile
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.models.vggt import VggtOutput
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

GEOMETRY = (VggtOutput.POSE, VggtOutput.DEPTH)


class Named(FakeBackend):
    """A fake that counts its calls, and breaks from one of them on."""

    def __init__(self, name, *, breaks_at=None, value=float("nan"), profile=None, raises=None):
        super().__init__(profile, spoil=self._spoil_tensors)
        self.name = name
        self.calls = 0
        self._breaks_at, self._value, self._raises = breaks_at, value, raises

    def _spoil_tensors(self, tensors):
        self.calls += 1
        if self._breaks_at is not None and self.calls >= self._breaks_at:
            if self._raises is not None:
                raise self._raises
            tensors["depth"][0, -1, 3, 5] = self._value


def clip(frames=2):
    return torch.rand(1, frames, 3, 42, 56, generator=torch.Generator().manual_seed(0))


def frame(index):
    rng = np.random.default_rng(index)
    return Frame(1_000_000_000 + index * 250_000_000, rng.integers(0, 256, (42, 56, 3), dtype=np.uint8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_next_backend_answers_the_same_request_and_the_broken_one_is_not_asked_again(value, caplog):
    broken, sound = Named("engine", breaks_at=2, value=value), Named("torch")
    chain = BackendChain([broken, sound])
    assert torch.isfinite(chain(clip(), GEOMETRY).depth).all()
    assert (chain.last_used, chain.fault) == ("engine", "")
    with caplog.at_level(logging.ERROR):
        assert torch.isfinite(chain(clip(), GEOMETRY).depth).all()
    chain(clip(), GEOMETRY)
    assert (broken.calls, sound.calls) == (2, 2)
    assert chain.last_used == chain.name == "torch"
    assert "The backend engine is no longer used, torch runs in its place" in chain.fault
    assert "1 of 4704 values of depth that are not finite" in chain.fault
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_backend_that_fails_is_replaced_in_the_same_way():
    chain = BackendChain([Named("engine", breaks_at=1, raises=EngineError("run", "It broke.")), Named("torch")])
    assert chain(clip(), GEOMETRY).depth.shape == (1, 2, 42, 56)
    assert "It broke." in chain.fault


def test_running_out_of_memory_is_for_the_caller_who_can_take_fewer_frames():
    chain = BackendChain([Named("engine", breaks_at=1, raises=torch.OutOfMemoryError("full")), Named("torch")])
    with pytest.raises(torch.OutOfMemoryError):
        chain(clip(), GEOMETRY)
    assert chain.fault == ""


def test_where_all_fail_the_weights_are_to_blame_and_nobody_is_put_aside():
    chain = BackendChain([Named("engine", breaks_at=1), Named("torch", breaks_at=1)])
    with pytest.raises(EngineError, match=r"engine gave 1 of 4704 .* torch gave 1 of 4704"):
        chain(clip(), GEOMETRY)
    assert (chain.name, chain.fault) == ("engine > torch", "")


def test_a_request_that_does_not_fit_is_no_fault(caplog):
    engine = Named("engine", profile=EngineProfile("geometry", 56, 42, 2, 2, 4))
    chain = BackendChain([engine, Named("torch")])
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            chain(clip(1), GEOMETRY)
    assert (chain.last_used, chain.fault, engine.calls) == ("torch", "", 0)
    assert sum("passed over" in record.message for record in caplog.records) == 1
    chain(clip(4), GEOMETRY)
    assert chain.last_used == "engine"


def test_a_request_for_nobody_is_an_error_that_says_why():
    chain = BackendChain([Named("engine", profile=EngineProfile("geometry", 56, 42, 2, 2, 4))])
    with pytest.raises(EngineError, match="takes 2 to 4 frames, not 1"):
        chain(clip(1), GEOMETRY)


def test_a_chain_needs_a_backend():
    with pytest.raises(ConfigurationError):
        BackendChain([])


def scene_with(chain):
    encoder = AutoGeometryEncoder(
        SensorDepthEncoder(),
        lambda: VggtGeometryEncoder(chain, device="cpu", image_width_px=56, window_size=2, anchor_count=1),
        window_size=2,
        anchor_count=1,
        fault=lambda: chain.fault,
    )
    return Scene(SceneConfig(rate_hz=0, ring_frames=8), encoder)


def test_a_scene_loses_no_frame_to_a_broken_engine_and_reports_it():
    chain = BackendChain([Named("engine", breaks_at=2), Named("torch")])
    scene, reference = scene_with(chain), scene_with(BackendChain([Named("torch")]))
    for index in range(6):
        for each in (scene, reference):
            each.add(frame(index))
    assert scene.process(max_calls=1) == 2
    assert scene.status().encoder_fault == ""
    assert scene.process() == 4
    assert reference.process() == 6
    status = scene.status()
    assert "engine is no longer used" in status.encoder_fault
    assert status.last_encoder_error == ""
    assert scene.snapshot.selection == reference.snapshot.selection


def test_diagnostics_have_the_broken_engine_as_an_error():
    diagnostics = pytest.importorskip("spatial_mllm_ros.ros.diagnostics", reason="rclpy is not installed")
    chain = BackendChain([Named("engine", breaks_at=1), Named("torch")])
    scene = scene_with(chain)
    for index in range(2):
        scene.add(frame(index))
    assert diagnostics.scene_status("node", scene.status()).level == b"\x00"
    scene.process()
    told = diagnostics.scene_status("node", scene.status())
    assert told.level == b"\x02"
    assert "engine is no longer used, torch runs in its place" in told.message


def test_a_scene_survives_a_model_that_is_broken_everywhere():
    scene = scene_with(BackendChain([Named("torch", breaks_at=1)]))
    scene.add(frame(0))
    assert scene.process() == 0
    assert "not finite" in scene.status().last_encoder_error
