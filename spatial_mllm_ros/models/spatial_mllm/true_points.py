"""Known 3-D points in the place of the spatial encoder's tokens: what a perfect encoder could tell the language model.

They serve as an ablation, and as a first stage of training: the language model learns from true points before it learns
from the encoder's tokens.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

_SHORTEST_M, _LONGEST_M = 0.25, 64.0  # wavelengths: finer than furniture, longer than any flat


def point_tokens(points_m: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines of points at ``width / 6`` wavelengths per axis, from 0.25 m to 64 m in equal ratios.

    All tokens have the same length, so a norm over their numbers, as at the connector's entrance, takes nothing away.

    Args:
        points_m: float [..., 3], metres, in the frame of the video's first camera; NaN where a point is not known,
            which gives a token of zeros.
        width: of a token, at least 6; numbers beyond its last multiple of 6 are zero.

    Returns:
        float32 [..., width].
    """
    count = width // 6
    steps = torch.arange(count, device=points_m.device) / max(1, count - 1)
    wavelengths_m = _SHORTEST_M * (_LONGEST_M / _SHORTEST_M) ** steps
    angles = points_m.float()[..., None] * (2 * math.pi / wavelengths_m)
    tokens = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2).nan_to_num(0.0)
    return F.pad(tokens, (0, width - tokens.shape[-1]))
