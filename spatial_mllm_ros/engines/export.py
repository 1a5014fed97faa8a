"""Exports VGGT to ONNX: fixed image size, any number of frames, types in the graph; checked before it is kept."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spatial_mllm_ros.engines.backend import tensors_of
from spatial_mllm_ros.engines.exported import (
    DATA_NAME,
    MANIFEST_NAME,
    MODEL_NAME,
    SAMPLE_NAME,
    ExportedModel,
    read_exported,
)
from spatial_mllm_ros.engines.files import replaced_folder
from spatial_mllm_ros.engines.mixed_precision import to_precision
from spatial_mllm_ros.engines.parity import ParityRow, compare, parity_table, sample_images
from spatial_mllm_ros.engines.profile import INPUT_NAME, EngineProfile, Precision
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.models.vggt import VGGT
from spatial_mllm_ros.provenance import code_version
from spatial_mllm_ros.storage import manifest_of

#: 20: plain operators, for TensorRT 10.3 to 10.13 (JetPack). 23: with the Attention operator, for TensorRT from 10.14
#: and for ONNX Runtime.
OPSETS = (20, 23)
EXTERNAL_DATA_ABOVE_BYTES = 1 << 30  # a protobuf message ends at 2 GiB

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        opset: one of ``OPSETS``.
        parity_frames: frame counts of the comparison with torch; () for the least and the best of the profile.
        external_data: weights in a file of their own; None: when they are larger than a GiB.
    """

    opset: int = 23
    parity_frames: tuple[int, ...] = ()
    external_data: bool | None = None

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise ConfigurationError(
                f"ExportOptions.opset is {self.opset}; it must be 20 (TensorRT before 10.14) or 23 (everything newer)."
            )


class ProfileGraph(nn.Module):
    """What is exported: images [1, S, 3, H, W] -> the profile's tensors, in its order."""

    def __init__(self, vggt: VGGT, profile: EngineProfile) -> None:
        super().__init__()
        self.vggt = vggt
        self.profile = profile

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return tuple(tensors_of(self.vggt(images, self.profile.outputs), self.profile.outputs).values())


def export_profile(
    vggt: VGGT, identity: ModelIdentity, profile: EngineProfile, folder: Path, options: ExportOptions | None = None
) -> ExportedModel:
    """Writes ``folder`` with the ONNX graph, its weights, a sample with torch's results, and the manifest.

    The graph passes ONNX's checker and shape inference, and its results are compared with those of torch, by ONNX
    Runtime on the CPU where it has the operators (it has none in bfloat16: there torch runs the exported program).

    Args:
        vggt: in evaluation mode, on the CPU. It is converted to the profile's precision in place.
        folder: appears whole or not at all; an older export is replaced.

    Raises:
        EngineError: ``unavailable``: onnx or onnxscript is not installed; ``export``: the graph is not valid;
            ``parity``: it does not compute what torch computes; ``build``: the folder cannot be written.
        ConfigurationError: the model lacks a head that the profile needs.
    """
    options = options or ExportOptions()
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise EngineError("unavailable", f"An export needs {package}: pip install spatial-mllm-ros[export].")
    counts = options.parity_frames or tuple(sorted({profile.min_frames, profile.best_frames}))
    with torch.no_grad(), _made_exportable(vggt, profile):
        vggt.cast_aggregator(torch.float32)
        samples = {frames: sample_images(profile, frames) for frames in counts}
        expected = {frames: _run(vggt, profile, images) for frames, images in samples.items()}
        to_precision(vggt, profile.precision)
        _log.info("Exporting %s with opset %d.", profile.name, options.opset)
        program = _export(ProfileGraph(vggt, profile).eval(), profile, options.opset)
        program.model.graph.name = profile.name
        program.model.metadata_props.update(_metadata(identity, profile, options.opset))
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # stack traces, with names of folders on this machine
        with replaced_folder(folder) as part:
            external = options.external_data
            if external is None:
                external = sum(weight.nbytes for weight in vggt.parameters()) > EXTERNAL_DATA_ABOVE_BYTES
            program.save(str(part / MODEL_NAME), external_data=external)
            _check(part / MODEL_NAME, profile)
            least = min(counts)
            save_file({INPUT_NAME: samples[least], **expected[least]}, str(part / SAMPLE_NAME))
            _write_manifest(part, program.model.metadata_props, ())
            rows = _parity(read_exported(part), vggt, samples, expected)
            _write_manifest(part, program.model.metadata_props, rows)
    return read_exported(folder)


def _write_manifest(part: Path, stated: dict[str, str], rows: tuple[ParityRow, ...]) -> None:
    names = [name for name in (MODEL_NAME, DATA_NAME, SAMPLE_NAME) if (part / name).is_file()]
    content = {
        "metadata": dict(stated),
        "files": manifest_of(part, names),
        "parity": [asdict(row) for row in rows],
    }
    (part / MANIFEST_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _run(vggt: VGGT, profile: EngineProfile, images: Tensor) -> dict[str, Tensor]:
    return {
        name: tensor.contiguous() for name, tensor in tensors_of(vggt(images, profile.outputs), profile.outputs).items()
    }


@contextlib.contextmanager
def _made_exportable(vggt: VGGT, profile: EngineProfile) -> Iterator[None]:
    """Makes the resized position grid a constant, as no ONNX operator gives it exactly, and removes the chunk loops."""
    encoder = vggt.aggregator.patch_embed
    grid = (profile.height_px // encoder.patch_size_px, profile.width_px // encoder.patch_size_px)
    positions = encoder.patch_positions(grid).detach().clone().float()
    heads = [head for head in (vggt.depth_head, vggt.point_head) if head is not None]
    chunks = [head.frames_per_chunk for head in heads]
    for head in heads:
        head.frames_per_chunk = 0
    vars(encoder)["patch_positions"] = lambda _grid: positions
    try:
        yield
    finally:
        del vars(encoder)["patch_positions"]
        for head, chunk in zip(heads, chunks, strict=True):
            head.frames_per_chunk = chunk


def _export(graph: ProfileGraph, profile: EngineProfile, opset: int) -> Any:
    # An example with one frame would fix the number of frames; any other number gives the same graph.
    frames = min(max(profile.min_frames, 3), profile.max_frames)
    dim = torch.export.Dim("frames", min=profile.min_frames, max=profile.max_frames) if profile.is_dynamic else None
    try:
        with _quiet_exporter(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                graph,
                (torch.zeros(profile.image_shape(frames)),),
                dynamic_shapes={INPUT_NAME: {1: dim} if dim is not None else None},
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=list(profile.tensors),
                verbose=False,
            )
    except ConfigurationError:
        raise
    except Exception as error:  # the exporter's have no common base class
        raise EngineError("export", f"{profile.name} cannot be exported with opset {opset}: {error}") from error


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hides one line of log per initializer, and per operator of packages that are not used here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _metadata(identity: ModelIdentity, profile: EngineProfile, opset: int) -> dict[str, str]:
    return {
        "model_name": identity.name,
        "model_sha256": identity.sha256,
        "model_licence": identity.licence,
        "random_weights": str(identity.random_weights).lower(),
        "profile": json.dumps(profile.to_json(), sort_keys=True),
        "precision": profile.precision.value,
        "opset": str(opset),
        "code_version": code_version(),
        "exporter": f"torch {torch.__version__}, onnxscript {metadata.version('onnxscript')}",
    }


def _check(path: Path, profile: EngineProfile) -> None:
    """ONNX's checker with strict shape inference, and the names and shapes that runtimes rely on."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError("export", f"The export of {profile.name} is not valid ONNX: {error}") from error
    graph = onnx.load(str(path), load_external_data=False).graph
    names = [value.name for value in (*graph.input, *graph.output)]
    if names != [INPUT_NAME, *profile.tensors]:
        raise EngineError("export", f"The export of {profile.name} has inputs and outputs {names}.")
    for value in (*graph.input, *graph.output):
        sides = value.type.tensor_type.shape.dim
        dynamic = [axis for axis, side in enumerate(sides) if not side.HasField("dim_value")]
        if dynamic != ([1] if profile.is_dynamic else []):
            raise EngineError(
                "export", f"{value.name} of {profile.name} has dynamic axes {dynamic}; only that of the frames may be."
            )


def _parity(
    exported: ExportedModel, vggt: VGGT, samples: dict[int, Tensor], expected: dict[int, dict[str, Tensor]]
) -> tuple[ParityRow, ...]:
    profile = exported.profile
    rows: list[ParityRow] = []
    with contextlib.ExitStack() as stack:
        backend: Any = None
        name = "torch (mixed)"
        if profile.precision is not Precision.BF16:
            from spatial_mllm_ros.engines.onnxruntime_backend import OnnxRuntimeBackend

            backend = stack.enter_context(contextlib.closing(OnnxRuntimeBackend(exported)))
            name = "onnxruntime-cpu"
        for frames, images in samples.items():
            found = (
                _run(vggt, profile, images)
                if backend is None
                else tensors_of(backend(images, profile.outputs), profile.outputs)
            )
            rows += compare(name, found, expected[frames], profile.precision)
    if not all(row.accepted for row in rows):
        raise EngineError(
            "parity", f"The export of {profile.name} does not compute what torch computes:\n{parity_table(rows)}"
        )
    return tuple(rows)
