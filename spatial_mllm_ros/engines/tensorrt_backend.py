"""A backend that runs a TensorRT engine on torch's memory, without copies over the host.

It has not been run on a GPU yet. Its calls are those that TensorRT 10.3 to 11 share; tests exercise them against a
stand-in with the same interface, and the tests marked ``gpu`` need a machine with a GPU.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spatial_mllm_ros.engines.backend import check_request, prediction_of
from spatial_mllm_ros.engines.profile import INPUT_NAME, EngineProfile
from spatial_mllm_ros.engines.tensorrt_build import make_logger
from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.models.vggt import VggtOutput, VggtPrediction

_MAX_SHAPES = 4  # frame counts with a context and a graph of their own at a time

_log = logging.getLogger(__name__)


class Device(Protocol):
    """The device of an engine: its memory, one stream, and the capture of a launch that is to be repeated."""

    @property
    def torch_device(self) -> torch.device:
        """Of all buffers."""
        ...

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        ...

    def run(self, work: Callable[[], None]) -> None:
        """Does ``work`` on the stream, after what the caller's stream has in it and before what comes next there."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records ``work`` and returns what repeats it; RuntimeError where it cannot be recorded."""
        ...


class CudaDevice:
    """A CUDA device with a stream of its own; launches are captured as CUDA graphs."""

    def __init__(self, device: torch.device | str = "cuda") -> None:
        self.torch_device = torch.device(device)
        self._stream = torch.cuda.Stream(self.torch_device)

    @property
    def stream(self) -> int:
        """See ``Device``."""
        return int(self._stream.cuda_stream)

    def run(self, work: Callable[[], None]) -> None:
        """See ``Device``."""
        caller = torch.cuda.current_stream(self.torch_device)
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            work()
        caller.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See ``Device``."""
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            work()
        return graph.replay


@dataclass(frozen=True, eq=False)
class _Launch:
    """Everything for one number of frames; addresses and shapes stay, so that the launch can be repeated."""

    context: Any
    images: Tensor
    outputs: dict[str, Tensor]
    start: Callable[[], None]


class TensorRtBackend:
    """One engine.

    Buffers are allocated once, for the most frames; each number of frames in use has an execution context over the same
    scratch memory, and a captured launch.

    Args:
        trt: the module ``tensorrt``.
        engine: checked bytes, as ``EngineCache.open`` gives them.
        profile: what it was built for.

    Raises:
        EngineError: ``run``: the engine cannot be deserialised, or does not run.
    """

    def __init__(self, trt: Any, engine: bytes, profile: EngineProfile, device: Device | None = None) -> None:
        self.name = f"tensorrt({profile.name})"
        self.profile = profile
        self._trt = trt
        self._device: Device = device or CudaDevice()
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineError("run", f"TensorRT {trt.__version__} does not load the engine: {self._logger.last_error}.")
        names = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        if names != {INPUT_NAME, *profile.tensors}:
            raise EngineError("run", f"The engine has the tensors {sorted(names)}, not those of {profile.name}.")
        scratch_bytes = int(self._engine.device_memory_size_v2)
        self._scratch = torch.empty(max(scratch_bytes, 1), dtype=torch.uint8, device=self._device.torch_device)
        self._buffers = {name: self._buffer(name) for name in (INPUT_NAME, *profile.tensors)}
        self._launches: OrderedDict[int, _Launch] = OrderedDict()
        self._launch(profile.best_frames)  # warm before the first request

    @property
    def device_bytes(self) -> int:
        """Memory of buffers and scratch; the weights of the engine come on top."""
        return self._scratch.nbytes + sum(buffer.nbytes for buffer in self._buffers.values())

    def refusal(self, image_shape: tuple[int, ...], outputs: Collection[VggtOutput]) -> str:
        """See ``EngineBackend``."""
        return "it has been closed" if self._engine is None else self.profile.refusal(image_shape, outputs)

    def __call__(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """See ``EngineBackend``."""
        check_request(self, images, outputs)
        launch = self._launch(int(images.shape[1]))
        copies: dict[str, Tensor] = {}

        def work() -> None:
            launch.images.copy_(images, non_blocking=True)
            launch.start()
            # the buffers belong to the next call
            copies.update({name: tensor.clone() for name, tensor in launch.outputs.items()})

        self._device.run(work)
        return prediction_of({name: tensor.to(images.device) for name, tensor in copies.items()}, outputs)

    def close(self) -> None:
        """See ``EngineBackend``."""
        self._launches.clear()
        self._buffers.clear()
        self._engine = self._runtime = None
        self._scratch = torch.empty(0)

    def _buffer(self, name: str) -> Tensor:
        """Flat memory for the most frames."""
        dtype = {
            self._trt.DataType.FLOAT: torch.float32,
            self._trt.DataType.HALF: torch.float16,
            self._trt.DataType.BF16: torch.bfloat16,
        }[self._engine.get_tensor_dtype(name)]
        return torch.zeros(
            math.prod(self._shape(name, self.profile.max_frames)), dtype=dtype, device=self._device.torch_device
        )

    def _shape(self, name: str, frames: int) -> tuple[int, ...]:
        # the number of frames is the only side that an engine of ours leaves open
        return tuple(
            frames if axis == 1 else int(side) for axis, side in enumerate(self._engine.get_tensor_shape(name))
        )

    def _launch(self, frames: int) -> _Launch:
        if frames in self._launches:
            self._launches.move_to_end(frames)
            return self._launches[frames]
        context = self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EngineError("run", f"TensorRT gave no execution context: {self._logger.last_error}.")
        context.set_device_memory(self._scratch.data_ptr(), self._scratch.nbytes)
        if not context.set_optimization_profile_async(0, self._device.stream):
            raise EngineError("run", f"TensorRT did not take its shape profile: {self._logger.last_error}.")
        views = {name: self._view(name, frames) for name in self._buffers}
        for name, view in views.items():
            if not context.set_tensor_address(name, view.data_ptr()):
                raise EngineError("run", f"TensorRT did not take the memory of {name}: {self._logger.last_error}.")
        if not context.set_input_shape(INPUT_NAME, tuple(views[INPUT_NAME].shape)):
            raise EngineError("run", f"TensorRT did not take {frames} frames: {self._logger.last_error}.")

        def start() -> None:
            if not context.execute_async_v3(self._device.stream):
                raise EngineError("run", f"TensorRT failed on {frames} frames: {self._logger.last_error}.")

        # Once before the capture: the first launch of a shape does work that must not be recorded.
        self._device.run(start)
        try:
            start = self._device.capture(start)
        except RuntimeError as error:
            _log.info("The launch of %s with %d frames is not captured (%s).", self.profile.name, frames, error)
        images = views.pop(INPUT_NAME)
        self._launches[frames] = _Launch(context, images, views, start)
        if len(self._launches) > _MAX_SHAPES:
            self._launches.popitem(last=False)
        return self._launches[frames]

    def _view(self, name: str, frames: int) -> Tensor:
        shape = self._shape(name, frames)
        return self._buffers[name][: math.prod(shape)].view(shape)
