"""Compares two ways of running VGGT tensor by tensor, and says whether the difference is accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spatial_mllm_ros.engines.profile import EngineProfile, Precision

#: Least cosine of any output with torch in float32.
LEAST_COSINE = {Precision.FP32: 0.99999, Precision.FP16: 0.999, Precision.BF16: 0.999}
#: Largest relative error (norm of the difference over norm) of any output.
MOST_RELATIVE_ERROR = {Precision.FP32: 1e-3, Precision.FP16: 0.05, Precision.BF16: 0.05}


@dataclass(frozen=True)
class ParityRow:
    """One output at one number of frames, against torch in float32.

    Attributes:
        runtime: what ran the export.
        cosine: between the flattened tensors.
        relative_error: norm of the difference over the norm of torch's.
        max_error: largest absolute difference.
        accepted: finite and within the limits of the precision.
    """

    runtime: str
    frames: int
    tensor: str
    cosine: float
    relative_error: float
    max_error: float
    accepted: bool


def sample_images(profile: EngineProfile, frames: int, *, seed: int = 0) -> Tensor:
    """Images for a comparison, float32 [1, S, 3, H, W] in [0, 1]: smooth, with a little noise, every frame different.

    Every part of white noise would look the same to the network.
    """
    generator = torch.Generator().manual_seed(seed + frames)
    coarse = torch.rand(frames, 3, 5, 7, generator=generator)
    size = (profile.height_px, profile.width_px)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True)
    return (0.9 * smooth + 0.1 * torch.rand(frames, 3, *size, generator=generator))[None]


def compare(
    runtime: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], precision: Precision
) -> list[ParityRow]:
    """One row per tensor of ``expected``; what is not in ``found``, or not finite, is not accepted.

    Args:
        found, expected: tensors [1, S, ...] by name.
    """
    rows = []
    for name, reference in expected.items():
        frames = int(reference.shape[1])
        tensor = found.get(name)
        if tensor is None or tensor.shape != reference.shape or not bool(torch.isfinite(tensor).all()):
            rows.append(ParityRow(runtime, frames, name, 0.0, float("inf"), float("inf"), False))
            continue
        ours, theirs = tensor.detach().cpu().double().flatten(), reference.detach().cpu().double().flatten()
        # All tensors of VGGT are far from zero as a whole; the floor only keeps a division by zero out.
        norm = max(float(theirs.norm()), 1e-30)
        cosine = float(ours @ theirs) / max(float(ours.norm()) * norm, 1e-30)
        relative = float((ours - theirs).norm()) / norm
        accepted = cosine >= LEAST_COSINE[precision] and relative <= MOST_RELATIVE_ERROR[precision]
        rows.append(ParityRow(runtime, frames, name, cosine, relative, float((ours - theirs).abs().max()), accepted))
    return rows


def parity_table(rows: Iterable[ParityRow]) -> str:
    """A table in plain text, one line per row."""
    lines = [f"{'runtime':<18} {'frames':>6} {'tensor':<18} {'cosine':>10} {'relative':>10} {'largest':>10}"]
    lines += [
        f"{row.runtime:<18} {row.frames:>6} {row.tensor:<18} {row.cosine:>10.7f} {row.relative_error:>10.2e} "
        f"{row.max_error:>10.2e}{'' if row.accepted else '   NOT ACCEPTED'}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
