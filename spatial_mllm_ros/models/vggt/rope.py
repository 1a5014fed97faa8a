"""Rotary position embedding on the patch grid: the first half of a head turns with y, the second with x."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RopeTables(NamedTuple):
    """Cosine and sine per token, [P, head_dim] each."""

    cos: Tensor
    sin: Tensor

    def repeated(self, times: int) -> RopeTables:
        """The tables of ``times`` frames one after another, [times * P, head_dim]."""
        return RopeTables(self.cos.repeat(times, 1), self.sin.repeat(times, 1))


def rope_tables(
    grid: tuple[int, int], *, special_tokens: int, head_dim: int, base: float, dtype: torch.dtype, device: torch.device
) -> RopeTables:
    """Tables for one frame: ``special_tokens`` tokens at position 0, then the patches of ``grid`` at (y + 1, x + 1).

    The shape of the grid is known from the image, so nothing here depends on data: the tables become constants of an
    export. Angles are computed in float32 and rounded to ``dtype`` before the cosine, as in the published model.

    Args:
        grid: rows and columns of patches.
        head_dim: width of one attention head, a multiple of 4.
    """
    rows, columns = grid
    y = torch.arange(1, rows + 1, device=device).repeat_interleave(columns)
    x = torch.arange(1, columns + 1, device=device).repeat(rows)
    zeros = torch.zeros(special_tokens, dtype=y.dtype, device=device)
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device=device) / half
    frequencies = base**-exponents

    def angles(position: Tensor) -> Tensor:
        turn = torch.cat((zeros, position)).to(torch.float32)[:, None] * frequencies
        return torch.cat((turn, turn), dim=-1)  # [P, head_dim / 2]

    both = torch.cat((angles(y), angles(x)), dim=-1).to(dtype)
    return RopeTables(both.cos(), both.sin())


def apply_rope(tokens: Tensor, tables: RopeTables) -> Tensor:
    """Rotates queries or keys, [..., P, head_dim], by the tables of their tokens."""
    y1, y2, x1, x2 = tokens.chunk(4, dim=-1)
    return tokens * tables.cos + torch.cat((-y2, y1, -x2, x1), dim=-1) * tables.sin
