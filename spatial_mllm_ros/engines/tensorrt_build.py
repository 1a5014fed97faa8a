"""Builds a TensorRT engine from ONNX, with TensorRT 10.3 (JetPack) to 11. Types are those of the graph, without flags.

The module ``tensorrt`` is an argument of every function, so that it is imported only where it is used, and tests can
build the graphs with TensorRT-RTX, which has the same interface and needs no GPU to build.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spatial_mllm_ros.engines.profile import INPUT_NAME, EngineProfile
from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.storage import PRIVATE, write_bytes

#: Part of the cache key: another set of choices makes another engine.
BUILDER_FLAGS = "strongly-typed,no-tf32,float32-attention-decomposable"

_log = logging.getLogger(__name__)


def make_logger(trt: Any) -> Any:
    """A TensorRT logger that logs to Python's logging and keeps the last error.

    TensorRT reports the reason of a failure to the logger only: calls return None or False.
    """

    class _Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = message
                _log.error("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                _log.debug("TensorRT: %s", message)

    return _Logger()


def parse(trt: Any, logger: Any, builder: Any, onnx_path: Path) -> tuple[Any, Any]:
    """The network of an ONNX file, strongly typed, and the parser, which must live as long as the network.

    Raises:
        EngineError: ``build``: the file does not parse; the message has the parser's.
    """
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):  # from a file: external data lies beside it
        errors = "; ".join(str(parser.get_error(index)) for index in range(min(parser.num_errors, 5)))
        raise EngineError(
            "build", f"TensorRT {trt.__version__} does not parse {onnx_path}: {errors or 'no reason given'}."
        )
    _let_float32_attention_be_decomposed(trt, network)
    return network, parser


def build_engine(
    trt: Any,
    onnx_path: Path,
    profile: EngineProfile,
    engine_path: Path,
    *,
    timing_cache: Path | None = None,
    tell: Callable[[str], None] = lambda _what: None,
) -> None:
    """Writes the engine.

    Args:
        trt: the module ``tensorrt``.
        timing_cache: read if it is there, and written; the caller holds its lock.
        tell: called often with what the builder is doing.

    Raises:
        EngineError: ``build``.
    """
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network, _parser = parse(trt, logger, builder, onnx_path)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # where the graph says float32, it means it
    shapes = builder.create_optimization_profile()
    counts = (profile.min_frames, profile.best_frames, profile.max_frames)
    shapes.set_shape(INPUT_NAME, *(profile.image_shape(frames) for frames in counts))
    if config.add_optimization_profile(shapes) < 0:
        raise EngineError("build", f"TensorRT {trt.__version__} does not take the shapes of {profile.name}.")
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _progress_monitor(trt, tell)
    cache = None
    if timing_cache is not None:
        cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(
            "build",
            f"TensorRT {trt.__version__} cannot build {profile.name}: {logger.last_error or 'no reason given'}.",
        )
    write_bytes(engine_path, bytes(engine), mode=PRIVATE)
    if cache is not None and timing_cache is not None:
        write_bytes(timing_cache, bytes(config.get_timing_cache().serialize()), mode=PRIVATE)


def _let_float32_attention_be_decomposed(trt: Any, network: Any) -> None:
    """Allows plain products for attention in float32, for which TensorRT has no kernel of its own and would stop.

    Seen with TensorRT-RTX 1.7: "CHECK(composite_op->is_decomposable()) failed".
    """
    if not hasattr(trt, "IAttentionOutputLayer"):
        return  # before 10.14 there is no such layer, and the graphs for it have no such operator
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_OUTPUT:
            layer.__class__ = trt.IAttentionOutputLayer  # how the bindings cast a layer to its type
            if layer.attention.get_input(0).dtype == trt.DataType.FLOAT:
                layer.attention.decomposable = True


def _progress_monitor(trt: Any, tell: Callable[[str], None]) -> Any:
    class _Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell(f"{phase_name}, step {step + 1} of {self._steps.get(phase_name, 0)}")
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return _Monitor()
