"""Figures of the spatial encoder: compares every backend of this machine with torch, on the same weights and frames."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spatial_mllm_ros.benchmarks.process_memory import peak_bytes
from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.encoders.vggt import VggtGeometryEncoder
from spatial_mllm_ros.engines.backend import EngineBackend, tensors_of
from spatial_mllm_ros.engines.export import ExportOptions, export_profile
from spatial_mllm_ros.engines.exported import ExportedModel
from spatial_mllm_ros.engines.mixed_precision import to_precision
from spatial_mllm_ros.engines.onnxruntime_backend import OnnxRuntimeBackend, available_providers
from spatial_mllm_ros.engines.parity import compare
from spatial_mllm_ros.engines.profile import EngineProfile, Precision, ProfileKind
from spatial_mllm_ros.engines.torch_backend import TorchBackend
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.poses import cameras_from_vggt_pose_encoding
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity
from spatial_mllm_ros.models.small.random_checkpoint import random_vggt
from spatial_mllm_ros.models.small.sizes import FULL, MID, TINY_VGGT
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig, VggtOutput, VggtPrediction
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.world.world import split_seed
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

#: Outputs of every call, so that a compiler compiles once; the last layer costs nothing more.
_COMPARED = (VggtOutput.POSE, VggtOutput.DEPTH, VggtOutput.LAST_LAYER)
_IDENTITY = ModelIdentity("benchmark", "0" * 64, "VGGT", "none", random_weights=True)


@dataclass(frozen=True)
class Size:
    """A model to measure, and what it is shown.

    Attributes:
        frames: per call.
        calls: measured, per backend.
        clip_frames, selected: of the comparison of selections; 0 leaves it out.
        exported: whether ONNX Runtime and compiled torch take part (an export holds the weights several times in
            memory, and compiling this many layers takes longer than the measurement).
    """

    config: VggtConfig
    width_px: int
    height_px: int
    frames: int
    calls: int
    clip_frames: int
    selected: int
    exported: bool = True


SIZES = {
    "tiny": Size(
        TINY_VGGT,
        width_px=224,
        height_px=168,
        frames=6,
        calls=20,
        clip_frames=36,
        selected=8,
    ),
    "mid": Size(
        MID.vggt,
        width_px=518,
        height_px=392,
        frames=4,
        calls=4,
        clip_frames=9,
        selected=3,
    ),
    "full": Size(FULL.vggt, width_px=518, height_px=392, frames=2, calls=1, clip_frames=0, selected=0, exported=False),
}


class PlainVggt:
    """VGGT as it is usually run: in float32, every layer kept, camera, depth and point heads."""

    name = "plain"

    def __init__(self, vggt: VGGT) -> None:
        self._vggt = vggt

    def refusal(self, image_shape: tuple[int, ...], outputs: Collection[VggtOutput]) -> str:
        """See ``EngineBackend``."""
        return ""

    def __call__(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """See ``EngineBackend``; all outputs are computed whatever is asked for."""
        with torch.no_grad():
            layers = self._vggt.aggregator(images, range(self._vggt.config.depth))
            return self._vggt.heads(layers, self._vggt.aggregator.grid_of(images), tuple(VggtOutput))

    def close(self) -> None:
        """See ``EngineBackend``."""


def encoder_rows(sizes: Sequence[str]) -> list[Row]:
    """Rows of every size asked for.

    Raises:
        ConfigurationError: an unknown size.
    """
    unknown = [name for name in sizes if name not in SIZES]
    if unknown:
        raise ConfigurationError(f"Unknown encoder sizes {', '.join(unknown)}; there are {', '.join(SIZES)}.")
    return [row for name in sizes for row in measure(name, SIZES[name])]


def measure(name: str, size: Size) -> list[Row]:
    """Rows of one size: the backends take turns call by call, so that whatever slows the machine slows all of them."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vggt = random_vggt(size.config)
    with tempfile.TemporaryDirectory(prefix="spatial_mllm_ros_") as folder:
        exported = _export(vggt, size, Path(folder)) if size.exported else None
        vggt.to(device)
        backends, opened_bytes = _open(vggt, size, exported)
        images = _images(_clip(size.frames), size).to(device)
        seconds, call_bytes = _timed(backends, images, size.calls)
        rows = []
        detail = (
            f"{size.frames} frames of {size.width_px}x{size.height_px}, {size.calls} calls in turn, random weights, "
            f"{device}, {torch.get_num_threads()} CPU threads"
        )
        for backend in backends:
            rows += _speed_rows(name, backend.name, seconds, size.frames, detail)
            memory = opened_bytes[backend.name] + call_bytes[backend.name]
            rows.append(Row(f"encoder.{name}.{backend.name}.memory_mib", memory / 2**20, "MiB", "", _MEMORY))
        best = min((b.name for b in backends if b.name != "plain"), key=lambda other: np.median(seconds[other]))
        speedup = np.median(seconds["plain"]) / np.median(seconds[best])
        rows.append(Row(f"encoder.{name}.best_over_plain", speedup, "", ">= 2", f"best: {best}; {detail}"))
        reference = backends[0]
        for backend in backends[1:]:
            rows += _parity_rows(name, backend, reference, images, size)
        return rows


_MEMORY = "what opening took and kept, and the peak of one call above that"


def _open(vggt: VGGT, size: Size, exported: ExportedModel | None) -> tuple[list[EngineBackend], dict[str, float]]:
    """Eager torch first; what cannot be opened is left out."""
    weights = float(sum(parameter.nbytes for parameter in vggt.parameters()))
    opened: dict[str, float] = {"torch": weights, "plain": weights}
    backends: list[EngineBackend] = [TorchBackend(vggt), PlainVggt(vggt)]
    half_vggt = to_precision(copy.deepcopy(vggt), Precision.BF16)
    half = TorchBackend(half_vggt)
    half.name = "torch-bf16"
    backends.append(half)
    opened[half.name] = float(sum(parameter.nbytes for parameter in half_vggt.parameters()))
    if not size.exported:
        return backends, opened
    compiled = TorchBackend(vggt, compiled=True)
    backends.append(compiled)
    opened[compiled.name] = weights
    for provider in available_providers():
        if exported is None:
            continue
        try:
            backend, taken = peak_bytes(partial(OnnxRuntimeBackend, exported, provider=provider))
        except EngineError:
            continue
        backend.name = f"onnxruntime-{provider}"
        opened[backend.name] = taken
        backends.append(backend)
    return backends, opened


def _export(vggt: VGGT, size: Size, folder: Path) -> ExportedModel:
    profile = EngineProfile(
        ProfileKind.GEOMETRY, size.width_px, size.height_px, 2, size.frames, 2 * size.frames, outputs=_COMPARED
    )
    return export_profile(copy.deepcopy(vggt), _IDENTITY, profile, folder / "export", ExportOptions(parity_frames=(2,)))


def _timed(
    backends: Sequence[EngineBackend], images: Tensor, calls: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each measured call, and the peak bytes of one, by backend."""
    peaks: dict[str, float] = {}
    for backend in backends:
        backend(images, _COMPARED)  # compiles, allocates
        _, peaks[backend.name] = peak_bytes(partial(backend, images, _COMPARED))
    seconds: dict[str, list[float]] = {backend.name: [] for backend in backends}
    for _ in range(calls):
        for backend in backends:
            _synchronise(images)
            start = time.perf_counter()
            backend(images, _COMPARED)
            _synchronise(images)
            seconds[backend.name].append(time.perf_counter() - start)
    return seconds, peaks


def _synchronise(images: Tensor) -> None:
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)


def _speed_rows(size: str, backend: str, seconds: dict[str, list[float]], frames: int, detail: str) -> list[Row]:
    own = np.array(seconds[backend])
    name = f"encoder.{size}.{backend}"
    rows = [
        Row(f"{name}.frames_per_s", frames / float(np.median(own)), "frames/s", "", detail),
        Row(f"{name}.call_p50_ms", 1e3 * float(np.percentile(own, 50)), "ms", "", detail),
        Row(f"{name}.call_p99_ms", 1e3 * float(np.percentile(own, 99)), "ms", "", detail),
    ]
    if backend not in ("torch", "plain"):
        ratio = float(np.median(seconds["torch"]) / np.median(own))
        aim = "" if backend == "torch-bf16" else ">= 1"
        rows.append(Row(f"{name}.over_eager", ratio, "", aim, f"median of eager torch over its own; {detail}"))
    return rows


def _parity_rows(
    size_name: str, backend: EngineBackend, reference: EngineBackend, images: Tensor, size: Size
) -> list[Row]:
    found, expected = backend(images, _COMPARED), reference(images, _COMPARED)
    (features,) = compare(
        "",
        tensors_of(found, (VggtOutput.LAST_LAYER,)),
        tensors_of(expected, (VggtOutput.LAST_LAYER,)),
        Precision.BF16,
    )
    depth = (found.depth - expected.depth).abs() / expected.depth  # type: ignore[operator]
    poses = [
        cameras_from_vggt_pose_encoding(
            prediction.pose_encoding[0].cpu().numpy(),  # type: ignore[index]
            width_px=size.width_px,
            height_px=size.height_px,
        ).cam_from_world
        for prediction in (found, expected)
    ]
    turned_deg = float(np.degrees(_angles_rad(poses[0][:, :3, :3], poses[1][:, :3, :3]).max()))
    spread = float(np.linalg.norm(poses[1][:, :3, 3], axis=1).mean())
    moved = float(np.linalg.norm(poses[0][:, :3, 3] - poses[1][:, :3, 3], axis=1).max())
    name = f"encoder.{size_name}.{backend.name}"
    against = "against eager torch in float32"
    rows = [
        Row(f"{name}.feature_cosine", features.cosine, "", ">= 0.999", f"last aggregator layer, {against}"),
        Row(f"{name}.depth_error", 100 * float(depth.mean()), "%", "<= 1", f"mean relative, {against}"),
        Row(f"{name}.position_error", 100 * moved / spread, "%", "<= 1", f"largest, of the mean distance, {against}"),
        Row(f"{name}.rotation_error", turned_deg, "deg", "", f"largest, {against}"),
    ]
    if size.clip_frames and backend.name != "torch-compiled":  # other numbers of frames would be compiled anew
        ours, theirs = _selected(backend, size), _selected(reference, size)
        same = 100 * len(ours & theirs) / len(theirs)
        detail = f"{size.selected} of {size.clip_frames} frames of a generated room, {against}"
        rows.append(Row(f"{name}.same_frames_selected", same, "%", ">= 95", detail))
    return rows


def _angles_rad(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    # by the chord: the arc cosine of a trace near 3 has lost half of its digits
    chord = np.linalg.norm(one - other, axis=(1, 2)) / (2 * np.sqrt(2))
    return 2 * np.arcsin(np.clip(chord, 0.0, 1.0))


def _selected(backend: EngineBackend, size: Size) -> set[int]:
    """Stamps of the frames that a scene selects whose geometry comes from ``backend``."""
    encoder = VggtGeometryEncoder(
        backend,
        device="cuda" if torch.cuda.is_available() else "cpu",
        image_width_px=size.width_px,
        window_size=size.frames - 1,
        anchor_count=1,
    )
    scene = Scene(SceneConfig(ring_frames=size.clip_frames, rate_hz=0.0, selected_frames=size.selected), encoder)
    for frame in _clip(size.clip_frames):
        scene.add(Frame(frame.stamp_ns, frame.rgb))
    scene.process()
    return set(scene.snapshot.selection.stamps_ns)


def _clip(frame_count: int) -> list[Frame]:
    """A walk through one generated room at two frames per second."""
    config = ClipConfig(frame_count, 320, 240, rate_hz=2.0)
    return list(make_clips([split_seed("val", 0)], config)[0].frames())


def _images(frames: Sequence[Frame], size: Size) -> Tensor:
    """[1, S, 3, H, W] in [0, 1]."""
    rows = torch.stack([torch.from_numpy(np.array(frame.rgb)).permute(2, 0, 1).float() / 255 for frame in frames])
    shape = (size.height_px, size.width_px)
    return torch.nn.functional.interpolate(rows, size=shape, mode="bilinear", antialias=True)[None]
