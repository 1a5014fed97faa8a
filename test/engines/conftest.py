"""One small VGGT and its exports, made once: exporting is what takes the time here."""

import copy
import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from spatial_mllm_ros.engines.backend import EngineBackend, tensors_of
from spatial_mllm_ros.engines.export import ExportOptions, export_profile
from spatial_mllm_ros.engines.exported import ExportedModel
from spatial_mllm_ros.engines.profile import EngineProfile
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig

IDENTITY = ModelIdentity("small", "5e" * 32, "VGGT", "apache-2.0", random_weights=True)
GEOMETRY = EngineProfile("geometry", 56, 42, 2, 3, 6)  # wider than high
FUSION = EngineProfile("fusion", 42, 56, 2, 4, 8, "fp16")  # higher than wide


def _small_vggt() -> VGGT:
    """Random weights, none of them zero, so that every part has its say."""
    config = VggtConfig(
        image_size_px=70,
        embed_dim=32,
        dino_depth=1,
        dino_heads=2,
        depth=2,
        heads=2,
        camera_trunk_depth=1,
        camera_heads=2,
        camera_iterations=2,
        dpt_layers=(0, 0, 1, 1),
        dpt_features=8,
        dpt_channels=(8, 8, 8, 8),
        point_head=False,
    )
    model = VGGT(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.add_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return model


@pytest.fixture(scope="session")
def vggt() -> VGGT:
    return _small_vggt()


@pytest.fixture(scope="session")
def exports_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="session")
def geometry_export(vggt: VGGT, exports_folder: Path) -> ExportedModel:
    """float32, operators of opset 23, weights in a file of their own."""
    options = ExportOptions(opset=23, external_data=True)
    return export_profile(copy.deepcopy(vggt), IDENTITY, GEOMETRY, exports_folder / "geometry", options)


@pytest.fixture(scope="session")
def fusion_export(vggt: VGGT, exports_folder: Path) -> ExportedModel:
    """float16, operators of opset 20, one file."""
    options = ExportOptions(opset=20)
    return export_profile(copy.deepcopy(vggt), IDENTITY, FUSION, exports_folder / "fusion", options)


# -- a stand-in for the module `tensorrt` ------------------------------------------------------------------------------


class HostDevice:
    """The CPU as the device of an engine: a launch is captured by remembering it."""

    def __init__(self) -> None:
        self.torch_device = torch.device("cpu")
        self.stream = 7
        self.captured = 0

    def run(self, work: Callable[[], None]) -> None:
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1
        return work


def _memory(address: int, shape: tuple[int, ...]) -> torch.Tensor:
    count = math.prod(shape)
    return torch.frombuffer((ctypes.c_float * count).from_address(address), dtype=torch.float32).view(shape)


class FakeTensorRt:
    """The calls that our code makes of TensorRT, with the order and the refusals of the real one.

    Attributes:
        backend: computes what the engine would.
        profile: of every engine.
        version, attention: of the runtime; whether it has attention layers (10.14 and later).
        log: what the builder was told.
    """

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

        def __init__(self) -> None:
            pass

    class DataType:
        FLOAT, HALF, BF16 = "float", "half", "bf16"

    class ExecutionContextAllocationStrategy:
        USER_MANAGED = "user"

    class NetworkDefinitionCreationFlag:
        STRONGLY_TYPED = 1

    class BuilderFlag:
        TF32 = "tf32"

    class LayerType:
        ATTENTION_OUTPUT, CONVOLUTION = "attention", "convolution"

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

    def __init__(
        self,
        backend: EngineBackend | None = None,
        profile: EngineProfile = GEOMETRY,
        *,
        version: str = "10.14.1.48",
        refuses: str = "",
    ) -> None:
        self.backend, self.profile, self.refuses = backend, profile, refuses
        self.__version__ = version
        self.log: list[object] = []
        self.executed = 0
        if tuple(int(part) for part in version.split(".")[:2]) >= (10, 14):
            self.IAttentionOutputLayer = type("IAttentionOutputLayer", (_Layer,), {})

    def Runtime(self, logger: object) -> object:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=lambda content: self._engine(content, logger))

    def _engine(self, content: bytes, logger: object) -> object:
        if not content.startswith(b"engine"):
            logger.log(self.ILogger.ERROR, "magic tag does not match")
            return None
        names = ["images", *self.profile.tensors]
        sides = {
            "images": self.profile.image_shape(-1),
            "pose_encoding": (1, -1, 9),
            "depth": (1, -1, self.profile.height_px, self.profile.width_px),
        }
        sides["depth_confidence"] = sides["depth"]
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=lambda index: names[index],
            get_tensor_dtype=lambda name: self.DataType.FLOAT,
            get_tensor_shape=lambda name: sides[name],
            device_memory_size_v2=4096,
            create_execution_context=lambda strategy: _Context(self, logger) if strategy == "user" else None,
        )

    def Builder(self, logger: object) -> object:  # noqa: N802
        layers = [_Layer(self.LayerType.CONVOLUTION), _Layer(self.LayerType.ATTENTION_OUTPUT)]
        network = SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index], layers=layers)
        self.network = network
        profile = SimpleNamespace(set_shape=lambda *shapes: self.log.append(shapes))

        def create_network(flags: int) -> object:
            self.log.append(("flags", flags))
            return network

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=lambda: _Config(self),
            create_optimization_profile=lambda: profile,
            build_serialized_network=lambda network, config: self._build(config, logger),
        )

    def _build(self, config: "_Config", logger: object) -> bytes | None:
        if self.refuses == "build":
            logger.log(self.ILogger.ERROR, "no implementation for node_7")
            return None
        config.progress_monitor.phase_start("Building", None, 2)
        assert config.progress_monitor.step_complete("Building", 0)
        config.progress_monitor.phase_finish("Building")
        return b"engine of " + self.__version__.encode()

    def OnnxParser(self, network: object, logger: object) -> object:  # noqa: N802
        return SimpleNamespace(
            parse_from_file=lambda path: Path(path).is_file() and self.refuses != "parse",
            num_errors=1,
            get_error=lambda index: "node_3: unsupported operator",
        )


class _Layer:
    def __init__(self, kind: str) -> None:
        self.type = kind
        query = SimpleNamespace(dtype=FakeTensorRt.DataType.FLOAT)
        self.attention = SimpleNamespace(decomposable=False, get_input=lambda index: query)


class _Config:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt
        self._cache = b""

    def clear_flag(self, flag: object) -> None:
        self._trt.log.append(("clear", flag))

    def add_optimization_profile(self, profile: object) -> int:
        return -1 if self._trt.refuses == "profile" else 0

    def create_timing_cache(self, content: bytes) -> object:
        self._trt.log.append(("timing", content))
        return SimpleNamespace(serialize=lambda: content + b"+")

    def set_timing_cache(self, cache: object, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self._cache = cache

    def get_timing_cache(self) -> object:
        return self._cache


class _Context:
    def __init__(self, trt: FakeTensorRt, logger: object) -> None:
        self._trt, self._logger = trt, logger
        self._addresses: dict[str, int] = {}
        self._ready: set[str] = set()
        self._shape: tuple[int, ...] = ()

    def set_device_memory(self, address: int, size: int) -> None:
        assert address
        assert size >= 4096
        self._ready.add("memory")

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._ready.add("profile")
        return index == 0 and stream == 7

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address != 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert "profile" in self._ready, "the shape profile comes before the shapes"
        self._shape = shape
        return not self._trt.profile.refusal(shape, self._trt.profile.outputs)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        assert self._ready == {"memory", "profile"}
        if self._trt.refuses == "run":
            self._logger.log(self._trt.ILogger.ERROR, "an illegal memory access was encountered")
            return False
        self._trt.executed += 1
        outputs = self._trt.profile.outputs
        prediction = self._trt.backend(_memory(self._addresses["images"], self._shape), outputs)
        for name, tensor in tensors_of(prediction, outputs).items():
            _memory(self._addresses[name], tuple(tensor.shape)).copy_(tensor)
        return True


@pytest.fixture
def fake_tensorrt() -> Callable[..., tuple[FakeTensorRt, HostDevice]]:
    def make(backend: EngineBackend | None = None, **options: object) -> tuple[FakeTensorRt, HostDevice]:
        return FakeTensorRt(backend, **options), HostDevice()

    return make
